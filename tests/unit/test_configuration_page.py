"""docs/configuration.md and the Procfile say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from seawall.schedule_tables import SCHEDULE_KEYS
from seawall.scheduling import schedule_problems
from seawall.service_tables import SERVICE_KEYS
from seawall.settings import SETTINGS, load_settings
from tests.support.configuration_page import PAGE, with_tables


def test_page_lists_every_setting_and_every_key_as_they_are_now() -> None:
    """`make docs` writes the tables."""
    page = PAGE.read_text("utf-8")
    assert page == with_tables(page)
    for setting in SETTINGS.values():
        assert f"`{setting.variable}`" in page
    for key in (*SERVICE_KEYS, *SCHEDULE_KEYS):
        assert f"| `{key}` |" in page


def test_examples_of_the_page_are_one_valid_file(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), flags=re.S)
    (tmp_path / "seawall.toml").write_text("\n".join(examples))
    settings = load_settings({}, {"REDIS_PASSWORD": "secret"}, tmp_path)
    assert [table.key for table in settings.services] == ["chroma", "billing"]
    assert [schedule.name for schedule in settings.schedules] == ["nightly-reindex", "heartbeat"]
    assert schedule_problems(settings, []) == []
    assert settings.broker_url == "redis://:secret@cache:6379/0"


def test_procfile_starts_the_three_processes_and_requires_a_broker() -> None:
    from seawall.cli.main import cli

    lines = (PAGE.parents[1] / "Procfile").read_text().splitlines()
    processes = dict(line.split(": ", 1) for line in lines)
    assert list(processes) == ["web", "worker", "supervisor"]
    for name, line in processes.items():
        env, setting, program, command, *arguments = shlex.split(line.replace("$PORT", "8000"))
        assert (env, setting, program, command) == ("env", "SEAWALL_REQUIRE_BROKER=1", "seawall", name)
        cli.commands[command].make_context(command, list(arguments))
