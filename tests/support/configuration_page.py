"""Writes the tables of docs/configuration.md: `python -m tests.support.configuration_page`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from seawall.actors.service import Service
from seawall.schedule_tables import SCHEDULE_KEYS
from seawall.service_tables import SERVICE_KEYS
from seawall.settings import SETTINGS

__all__ = ["PAGE", "with_tables"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def with_tables(page: str) -> str:
    """The page with its tables as the code has them now."""
    tables = {"settings": _settings(), "alerts": _settings("alerts")}
    for name, table in (tables | {"services": _services(), "schedules": _schedules()}).items():
        page = _filled(page, name, table)
    return page


def _settings(table: str = "") -> str:
    """Those that stand in this table of the file."""
    rows = ["| environment, and name in the file | value | default | meaning |", "|---|---|---|---|"]
    for setting in (setting for setting in SETTINGS.values() if setting.table == table):
        where = f"`{setting.variable}`, " + ("not in the file" if setting.environment_only else f"`{setting.key}`")
        rows.append(f"| {where} | {setting.kind.says} | {_shown(setting.default)} | {setting.help} |")
    return "\n".join(rows)


def _services() -> str:
    defaults = {field.name: field.default for field in dataclasses.fields(Service)}
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, known in SERVICE_KEYS.items():
        rows.append(f"| `{key}` | {known.kind.says} | {_shown(defaults.get(key))} | {known.help} |")
    return "\n".join(rows)


def _schedules() -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, known in SCHEDULE_KEYS.items():
        rows.append(f"| `{key}` | {known.kind.says} | {_shown(known.default)} | {known.help} |")
    return "\n".join(rows)


def _shown(value: Any) -> str:
    if value is None or value is dataclasses.MISSING or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple) and isinstance(value[0], str):
        return ", ".join(f"`{word}`" for word in value)
    if isinstance(value, tuple):
        value = value[-1]
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _filled(page: str, name: str, table: str) -> str:
    start, end = rf"<!-- {name}: [^\n]*-->\n", "<!-- end -->"
    filled, times = re.subn(rf"({start}).*?({end})", lambda m: f"{m[1]}\n{table}\n\n{m[2]}", page, flags=re.S)
    assert times == 1, f"the page has no place for {name}"
    return filled


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
