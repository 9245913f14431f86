"""What a project may be called, and where its files may lie."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

__all__ = ["file_in_project", "project_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: Characters of a path inside a project.
_LONGEST_PATH = 500


def project_name(value: object) -> str:
    """The project's id as text, safe as the name of a folder. ValueError otherwise."""
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not _NAME.fullmatch(text):
        raise ValueError("project_id must be up to 64 letters, digits, - and _, and start with a letter or digit")
    return text


def file_in_project(folder: Path, file_path: object) -> Path:
    """Where `file_path` lies in a project's folder. ValueError for a path that would leave it, or is git's own."""
    if not isinstance(file_path, str) or not 0 < len(file_path) <= _LONGEST_PATH:
        raise ValueError(f"file_path must be text of 1 to {_LONGEST_PATH} characters")
    parts = PurePosixPath(file_path).parts
    if file_path.startswith("/") or file_path.endswith("/") or ".." in parts or not parts:
        raise ValueError("file_path must name a file inside the project")
    if "\\" in file_path or not file_path.isprintable():
        raise ValueError("file_path must not hold backslashes or control characters")
    # A .git folder would be read by git as a repository of its own, with its configuration.
    if any(part.casefold() == ".git" for part in parts):
        raise ValueError("file_path must not lead into a .git folder")
    root = folder.resolve()
    target = root.joinpath(*parts)
    if not target.resolve().is_relative_to(root):
        raise ValueError("file_path must name a file inside the project")
    return target
