"""Where values come from: arguments, the environment, a TOML file. A leaf module behind `seawall.settings`.

An environment variable that is empty counts as not set. `${NAME}` and `${NAME:-default}` in a URL of the file are
replaced from the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seawall.kinds import PATH, PREFIX, Problem, Setting, expand, nearest
from seawall.schedule_tables import ScheduleTable, read_schedules
from seawall.service_tables import ServiceTable, read_services

__all__ = ["FILE_NAME", "Reading"]

#: The file that is read from the current folder when no other one is named.
FILE_NAME = "seawall.toml"


class Reading:
    """One reading of all sources, the strongest first; a value that is set is not set again.

    Nothing is raised for what people wrote: `problems` collects all of it. Relative paths are taken from the file's
    folder where the file names them, and from `folder` elsewhere.
    """

    def __init__(
        self,
        table: Mapping[str, Setting],
        arguments: Mapping[str, Any],
        environ: Mapping[str, str] | None,
        folder: Path | None,
    ) -> None:
        """Raises TypeError for an argument that is no setting."""
        self._table = table
        self._environ = os.environ if environ is None else environ
        self._folder = Path.cwd() if folder is None else folder.absolute()
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.services: tuple[ServiceTable, ...] = ()
        self.schedules: tuple[ScheduleTable, ...] = ()
        self.problems: list[Problem] = []
        self._read_arguments(arguments)
        self._read_environment()
        self._read_file()
        self._fill_in()

    def _read_arguments(self, arguments: Mapping[str, Any]) -> None:
        for name, given in arguments.items():
            if name not in self._table:
                raise TypeError(f"{name!r} is no setting{nearest(name, self._table)}")
            if given is not None:
                self._take(self._table[name], given, "argument", f"argument {name}")

    def _read_environment(self) -> None:
        known = {setting.variable: setting for setting in self._table.values()}
        for variable in sorted(name for name in self._environ if name.startswith(PREFIX)):
            given = self._environ[variable]
            if variable not in known:
                self._unknown_variable(variable)
            elif given:
                self._take(known[variable], given, f"environment {variable}", variable)

    def _unknown_variable(self, variable: str) -> None:
        """A slip of the pen is an error; a name like no other may belong to a newer release, or to someone else."""
        hint = nearest(variable.removeprefix(PREFIX), [name.upper() for name in self._table], prefix=PREFIX)
        self.problems.append(Problem("error" if hint else "warning", variable, f"is not a setting{hint}"))

    def _read_file(self) -> None:
        named = self.values.get("config")
        file: Path = named or self._folder / FILE_NAME
        if named is None and not file.is_file():
            return
        self.values["config"] = file
        for name, given in self._parsed(file).items():
            self._read_entry(file, name, given)

    def _parsed(self, file: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            self._error(str(file), f"cannot be read: {error.strerror or error}")
        except UnicodeDecodeError:
            self._error(str(file), "is not UTF-8 text")
        except tomllib.TOMLDecodeError as error:
            self._error(str(file), f"is not valid TOML: {error}")
        return {}

    def _read_entry(self, file: Path, name: str, given: object) -> None:
        where = f"{file.name}: {name}"
        setting = self._table.get(name)
        if name == "services":
            self.services, found = read_services(given, file.name, self._environ)
            self.problems += found
        elif name == "schedules":
            self.schedules, found = read_schedules(given, file.name)
            self.problems += found
        elif name in {known.table for known in self._table.values() if known.table}:
            self._read_table(file, name, given)
        elif setting is None or setting.table:
            self._error(where, f"is not a setting{self._suggestion(name)}")
        else:
            self._take_from_file(setting, given, where, file)

    def _read_table(self, file: Path, table: str, given: object) -> None:
        """A table whose keys are settings, such as `[alerts]`."""
        where = f"{file.name}: {table}"
        if not isinstance(given, dict):
            self._error(where, f"must be a table, [{table}]")
            return
        known = {setting.key: setting for setting in self._table.values() if setting.table == table}
        for key, value in given.items():
            if key in known:
                self._take_from_file(known[key], value, f"{where}.{key}", file)
            else:
                self._error(f"{where}.{key}", f"is not a key of [{table}]{nearest(key, known)}")

    def _take_from_file(self, setting: Setting, given: object, where: str, file: Path) -> None:
        if setting.environment_only:
            self._error(where, f"may not be in the file; {_instead(setting)}")
        else:
            self._take(setting, given, file.name, where, file=file)

    def _suggestion(self, name: str) -> str:
        """What a name that is no setting of the file may have been meant to be."""
        setting = self._table.get(name)
        if setting is not None:
            return f"; write it as {setting.key} under [{setting.table}]"
        tables = {setting.table for setting in self._table.values() if setting.table}
        plain = [name for name, setting in self._table.items() if not setting.table]
        return nearest(name, (*plain, *sorted(tables), "services", "schedules"))

    def _take(self, setting: Setting, given: Any, source: str, where: str, *, file: Path | None = None) -> None:
        try:
            if file is not None and setting.expands and isinstance(given, str):
                given = expand(given, self._environ)
            value = setting.kind.value(given, from_text=file is None)
        except ValueError as error:
            self._error(where, str(error))
            return
        if setting.name not in self.values:
            base = self._folder if file is None else file.absolute().parent
            self.values[setting.name] = base / value if setting.kind is PATH else value
            self.sources[setting.name] = source

    def _fill_in(self) -> None:
        for name, setting in self._table.items():
            self.sources.setdefault(name, "default")
            if isinstance(setting.default, Path):
                self.values.setdefault(name, self._folder / setting.default)

    def _error(self, setting: str, text: str) -> None:
        self.problems.append(Problem("error", setting, text))


def _instead(setting: Setting) -> str:
    if setting.secret:
        return f"set {setting.variable}, or {setting.key}_file to a file that holds it"
    return f"set {setting.variable}"
