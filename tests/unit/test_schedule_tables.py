"""`[[schedules]]` in seawall.toml: what is read, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from seawall.actors.service import Service
from seawall.errors import ConfigurationError
from seawall.schedule_tables import SCHEDULE_KEYS, checked_ticks
from seawall.scheduling import schedule_problems
from seawall.settings import Settings, load_settings, read_settings
from seawall.ticks import Cron, Every

GOOD = """
[[schedules]]
name = "nightly"
service = "chroma"
method = "POST"
path = "/reindex"
cron = "30 3 * * *"
timezone = "Europe/Berlin"
"""


def load(folder: Path, toml: str) -> Settings:
    (folder / "seawall.toml").write_text(toml)
    return load_settings({}, {}, folder)


def found(folder: Path, toml: str) -> list[str]:
    (folder / "seawall.toml").write_text(toml)
    return [str(problem) for problem in read_settings({}, {}, folder)[1]]


def said(folder: Path, toml: str, *declared: Service) -> list[str]:
    """What is wrong beyond the types."""
    return [str(problem) for problem in schedule_problems(load(folder, toml), declared)]


def changed(**values: str) -> str:
    """The good table with these lines; an empty one is left out."""
    lines = dict(line.split(" = ", 1) for line in GOOD.splitlines() if " = " in line) | values
    return "[[schedules]]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items() if value)


def test_tables_are_read_with_their_source(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD + changed(name='"often"', cron="", timezone="", every="60", json="{ a = [1] }"))
    nightly, often = settings.schedules
    assert (nightly.name, nightly.source, nightly.values["cron"]) == ("nightly", "seawall.toml", "30 3 * * *")
    assert (often.values["every"], often.values["json"]) == (60.0, {"a": [1]})
    rows = {name: (value, source) for name, value, source in settings.rows()}
    assert rows["schedules.nightly.cron"] == ("30 3 * * *", "seawall.toml")


def test_headers_are_shown_without_their_values(tmp_path: Path) -> None:
    rows = load(tmp_path, changed(headers='{ X-Key = "canary", Accept = "text/plain" }')).rows()
    assert ("schedules.nightly.headers", "X-Key, Accept", "seawall.toml") in rows
    assert "canary" not in str(rows)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (changed(cron='"61 * * * *"'), "nightly.cron must be five fields of crontab, such as '30 3 * * *', not '61 * * * *'"),
        (changed(cron="", every="0", timezone=""), "nightly.every must be a number of seconds, 0.1 or more, not 0"),
        (changed(timezone='"Europe/Berln"'), "did you mean 'Europe/Berlin'?"),
        (changed(every="60"), "nightly has both cron and every; give one of the two"),
        (changed(cron="", timezone=""), "nightly has neither cron nor every; give one of the two"),
        (changed(cron="", every="60"), "nightly has a timezone, which means nothing to every"),
        (changed(json="{}", body='"x"'), "nightly has both json and body; give one of the two"),
        (changed(corn='"x"'), "nightly.corn is not a key of a schedule; did you mean 'cron'?"),
        (changed(service=""), "nightly has no service"),
        (changed(path="3"), "nightly.path must be text, not a number"),
        (changed(headers="{ A = 1 }"), "nightly.headers must be a table of texts"),
        (changed(on_open='"skipp"'), "nightly.on_open must be hold or skip, not 'skipp'; did you mean 'skip'?"),
        (changed(expires_in="0"), "nightly.expires_in must be a number of seconds, more than 0"),
        (changed(rounds="-1"), "nightly.rounds must be a whole number, 0 or more"),
        (changed(name=""), "schedules.#1 has no name"),
        (changed(name='"a b"'), "schedules.a b.name must be at most 63 letters"),
        (GOOD + GOOD, "nightly is there twice; a schedule's name is its identity"),
        ("[schedules]\nname = 'x'", "schedules must be tables, each under [[schedules]]"),
        ("schedules = [1]", "schedules must be tables, each under [[schedules]]"),
        ("[[schedule]]\nname = 'x'", "schedule is not a setting; did you mean 'schedules'?"),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_schedule_and_key(tmp_path: Path, toml: str, expected: str) -> None:
    (problem,) = found(tmp_path, toml)
    assert problem.startswith("seawall.toml: schedule")
    assert expected in problem
    with pytest.raises(ConfigurationError):
        load(tmp_path, toml)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(found(tmp_path, changed(cron='"x"', rounds="-1", service="") + "\n" + changed(name='"b"', path=""))) == 4


class TestWhatOnlyTheServicesTell:
    CHROMA = Service(key="chroma", name="Chroma", base_url="http://chroma:6003/api")

    def test_service_may_be_declared_in_the_file_or_in_code(self, tmp_path: Path) -> None:
        assert said(tmp_path, GOOD, self.CHROMA) == []
        assert said(tmp_path, GOOD + "[services.chroma]\nurl = 'http://chroma:6003'") == []

    def test_service_that_nobody_declares(self, tmp_path: Path) -> None:
        (problem,) = said(tmp_path, changed(service='"chrome"'), self.CHROMA)
        assert problem == (
            "seawall.toml: schedules.nightly.service names 'chrome', which is declared neither in the file nor in code; "
            "did you mean 'chroma'?"
        )

    def test_service_whose_own_table_is_wrong_is_told_there(self, tmp_path: Path) -> None:
        (problem,) = said(tmp_path, GOOD + "[services.chroma]\nurl = 'ftp://chroma'")
        assert "declared neither" in problem

    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            ({"path": '"http://elsewhere/x"'}, "cannot be called: "),
            ({"path": '"/../../x"'}, "cannot be called: "),
            ({"method": '"PO ST"'}, "cannot be called: 'PO ST' is not a method that can be called"),
            ({"headers": '{ Authorization = "x" }'}, "Authorization would lie in the queue in clear text"),
            ({"json": "{ at = 2026-11-24 }"}, "is not JSON serializable"),
        ],
    )
    def test_call_that_cannot_be_made(self, tmp_path: Path, wrong: dict[str, str], expected: str) -> None:
        (problem,) = said(tmp_path, changed(**wrong), self.CHROMA)
        assert problem.startswith("seawall.toml: schedules.nightly cannot be called: ")
        assert expected in problem


class TestInCode:
    def test_is_held_to_the_same_rules(self) -> None:
        assert checked_ticks("a", "30 3 * * *", None, "UTC", {}) == Cron("30 3 * * *")
        assert checked_ticks("a", None, 60, "UTC", {"rounds": 2, "expires_in": None}) == Every(60)

    @pytest.mark.parametrize(
        ("name", "cron", "every", "zone", "options", "expected"),
        [
            ("a b", "* * * * *", None, "UTC", {}, "schedule 'a b': name must be at most 63 letters"),
            ("a", None, None, "UTC", {}, "schedule 'a' has neither cron nor every"),
            ("a", "* * * * *", 60, "UTC", {}, "schedule 'a' has both cron and every"),
            ("a", "* * * *", None, "UTC", {}, "schedule 'a': cron must be five fields"),
            ("a", None, 0, "UTC", {}, "schedule 'a': every must be a number of seconds"),
            ("a", None, 60, "Europe/Berlin", {}, "schedule 'a' has a timezone, which means nothing to every"),
            ("a", "* * * * *", None, "Berlin", {}, "schedule 'a': timezone must be a time zone"),
            ("a", None, 60, "UTC", {"rounds": -1}, "schedule 'a': rounds must be a whole number"),
            ("a", None, 60, "UTC", {"on_open": "drop"}, "schedule 'a': on_open must be hold or skip"),
        ],
    )
    def test_mistakes_name_the_schedule_and_the_key(
        self, name: str, cron: str | None, every: float | None, zone: str, options: dict[str, object], expected: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            checked_ticks(name, cron, every, zone, options)
        assert expected in str(caught.value)

    @pytest.mark.parametrize("option", ["files", "delay", "not_before", "dedupe"])
    def test_options_that_mean_nothing_for_a_schedule(self, option: str) -> None:
        with pytest.raises(TypeError, match=f"schedule 'a': {option}= cannot be scheduled: "):
            checked_ticks("a", None, 60, "UTC", {option: "x"})


def test_every_key_is_explained() -> None:
    assert all(key.help.endswith(".") and key.kind.says for key in SCHEDULE_KEYS.values())
