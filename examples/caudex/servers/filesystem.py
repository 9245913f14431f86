"""Filesystem: text files of projects, inside one folder and nowhere else.

POST /save_file                            {"project_id", "file_path", "content"}    replaces the file in one step
GET  /read_file?project_id=&file_path=     -> {"content"}
GET  /files/{project_id}                   -> {"files": [path]}
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from examples.caudex.projects import file_in_project, project_name
from examples.caudex.servers.base import Answer, Request, Route, route
from examples.caudex.servers.fields import Problem, checked, text
from examples.caudex.servers.serving import main

__all__ = ["Files", "build"]


class Files:
    """Files by project and path. A reader, and a snapshot, sees the old content or the new, never half of one."""

    def __init__(self, root: Path) -> None:
        self._root = root / "files"
        # Beside the projects, not in them: a snapshot must not find a half-written file.
        self._incoming = root / "incoming"
        for folder in (self._root, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, project: object, file_path: object) -> Path:
        """ValueError for a path that leaves the project."""
        return file_in_project(self._root / project_name(project), file_path)

    def save(self, path: Path, content: str) -> int:
        """Write the content to disk and put it in place; answers its size in bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path.stat().st_size

    def names(self, project: str) -> list[str]:
        folder = self._root / project
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def build(data: Path) -> list[Route]:
    files = Files(data)
    return [
        route("POST", "/save_file", lambda request: _save(files, request)),
        route("GET", "/read_file", lambda request: _read(files, request)),
        route("GET", "/files/{project_id}", lambda request: _list(files, request)),
    ]


def _save(files: Files, request: Request) -> Answer:
    fields = request.json()
    path = checked(files.path, fields.get("project_id"), fields.get("file_path"))
    content = text(fields, "content")
    try:
        return Answer({"saved": fields["file_path"], "bytes": files.save(path, content)})
    except UnicodeEncodeError:
        raise Problem(400, "content holds a lone surrogate") from None
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise Problem(409, "a file and a folder cannot share one name") from None


def _read(files: Files, request: Request) -> Answer:
    path = checked(files.path, request.query.get("project_id"), request.query.get("file_path"))
    if not path.is_file():
        raise Problem(404, "no such file")
    return Answer({"content": path.read_text(encoding="utf-8", errors="replace")})


def _list(files: Files, request: Request) -> Answer:
    return Answer({"files": files.names(checked(project_name, request.params["project_id"]))})


if __name__ == "__main__":
    sys.exit(main("filesystem", build))
