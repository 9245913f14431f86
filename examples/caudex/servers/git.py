"""Git: snapshots of a project's files, with the real git.

    POST /snapshot/{project_id}    {"message"}    -> {"commit", "count"}; a commit even when nothing changed
    GET  /log/{project_id}         ?limit=        -> {"total", "commits": newest first}; 404 before the first snapshot

The files are those that the filesystem service keeps in the same data folder. The repository lies outside of them,
so no saved file can reach into it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.caudex.projects import project_name
from examples.caudex.servers.base import Answer, Request, Route, route
from examples.caudex.servers.fields import Problem, checked, text, whole_number
from examples.caudex.servers.serving import main

__all__ = ["Repository", "build"]

#: Seconds that one git command may take.
GIT_SECONDS = 20.0
MOST_COMMITS = 1000
DEFAULT_MESSAGE = "Auto-save"

_IDENTITY = {"NAME": "Caudex", "EMAIL": "caudex@example.invalid"}
_SETTINGS = ("core.hooksPath=/dev/null", "core.bare=false", "gc.auto=0", "commit.gpgSign=false", "core.autocrlf=false")


class Repository:
    """One project's history. Snapshots of one project take turns, across processes too."""

    def __init__(self, data: Path, project: str) -> None:
        self._store = (data / "git" / f"{project}.git").resolve()
        self._files = (data / "files" / project).resolve()
        self._lock_file = self._store.with_suffix(".lock")

    @property
    def exists(self) -> bool:
        return (self._store / "refs" / "heads" / "main").exists()

    def snapshot(self, message: str) -> dict[str, Any]:
        """Commit every file as it is now. RuntimeError with git's own words when git fails."""
        self._files.mkdir(parents=True, exist_ok=True)
        with self._turn() as lock:
            if not self.exists:
                self._git(lock, "init", "--quiet", "--template=", "--initial-branch=main")
            self._git(lock, "add", "--all", "--", ".")
            self._git(lock, "commit", "--quiet", "--allow-empty", "--file=-", given=message)
            commit = self._git(lock, "rev-parse", "HEAD").strip()
            return {"commit": commit, "count": self._count(lock)}

    def log(self, limit: int) -> dict[str, Any]:
        with self._turn() as lock:
            lines = self._git(lock, "log", f"--max-count={limit}", "--format=%H%x09%cI%x09%s").splitlines()
            names = ("commit", "at", "message")
            commits = [dict(zip(names, line.split("\t", 2), strict=True)) for line in lines]
            return {"total": self._count(lock), "commits": commits}

    def _count(self, lock: int) -> int:
        return int(self._git(lock, "rev-list", "--count", "HEAD"))

    @contextmanager
    def _turn(self) -> Iterator[int]:
        """Hold the project. The git commands inherit the lock: if this server is killed, its last one keeps it."""
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left_over in (*self._store.glob("*.lock"), *self._store.glob("refs/heads/*.lock")):
                left_over.unlink(missing_ok=True)  # of a git that was killed: nobody else is here
            yield lock
        finally:
            os.close(lock)

    def _git(self, lock: int, *command: str, given: str = "") -> str:
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        places = [f"--git-dir={self._store}", f"--work-tree={self._files}"]
        done = subprocess.run(
            ["git", *settings, *places, *command],
            input=given.encode(errors="replace"),
            capture_output=True,
            timeout=GIT_SECONDS,
            cwd=self._files,
            env=_environment(),
            pass_fds=[lock],
        )
        if done.returncode:
            raise RuntimeError(f"git {command[0]} failed: {done.stderr.decode(errors='replace').strip()[:500]}")
        return done.stdout.decode(errors="replace")


def _environment() -> dict[str, str]:
    """This process's environment without anything that steers git, and without anybody's own git settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    people = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _IDENTITY.items()}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    return kept | people | alone


def build(data: Path) -> list[Route]:
    if shutil.which("git") is None:
        raise OSError("the git program is not installed")
    return [
        route("POST", "/snapshot/{project_id}", lambda request: _snapshot(data, request)),
        route("GET", "/log/{project_id}", lambda request: _log(data, request)),
    ]


def _snapshot(data: Path, request: Request) -> Answer:
    project = checked(project_name, request.params["project_id"])
    message = text(request.json(), "message", default=DEFAULT_MESSAGE, longest=2000).replace("\0", "").strip()
    return Answer({"project_id": project, **Repository(data, project).snapshot(message or DEFAULT_MESSAGE)})


def _log(data: Path, request: Request) -> Answer:
    project = checked(project_name, request.params["project_id"])
    limit = whole_number(request.query, "limit", low=1, high=MOST_COMMITS, default=50)
    repository = Repository(data, project)
    if not repository.exists:
        raise Problem(404, "this project has no snapshot yet")
    return Answer({"project_id": project, **repository.log(limit)})


if __name__ == "__main__":
    sys.exit(main("git", build))
