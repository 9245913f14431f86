"""What examples/monitoring and docs/operations.md name exists: metrics, labels and their values, pages' headings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.actors.meter import OUTCOMES
from seawall.exposition import exposition
from seawall.fleet import COUNTED
from seawall.supervisor.breaker import ForceClose, ForceOpen
from tests.support import CountingService, wait_until
from tests.support.dead_letters import bury_calls
from tests.support.house import RemoteHouse, caller

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "monitoring"

#: What Prometheus itself adds, or makes.
OWN_LABELS = {"job", "instance"}
#: Words of a label that has no value while nothing has happened.
WORDS = {"outcome": {*OUTCOMES, "succeeded", "failed", "inconclusive"}, "event": set(COUNTED)}

Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def metrics(redis_server: Any) -> dict[str, Labels]:
    """Every sample's name with its labels and their values, of a fleet to which everything has happened."""
    with redis_server.client() as client:
        client.flushall()
    with caller(redis_server.url) as runtime, CountingService() as service:
        client = ResilientServiceClient(service.url, key="git", max_retries=2)
        with RemoteHouse(redis_server.url):
            client.get("/")
            for event in (ForceOpen(), ForceClose()):
                client._view().by_hand(event)
            wait_until(lambda: "mean_time_to_recovery_seconds{" in exposition(runtime, runtimes.registry))
            bury_calls(runtime.engine.queue, "other", ["/"], reason="expired")
            wait_until(lambda: "seawall_dead_letters_total{" in exposition(runtime, runtimes.registry))
            text = exposition(runtime, runtimes.registry)
    found: dict[str, Labels] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def check(expression: str, metrics: dict[str, Labels]) -> None:
    """Every name, label and value of a PromQL expression is one that is told."""
    named = re.findall(r"\b(seawall_\w+)(?:\{([^}]*)\})?", expression)
    known: set[str] = set(OWN_LABELS)
    for name, selector in named:
        assert name in metrics, f"{name} does not exist: {expression}"
        known |= set(metrics[name])
        for label, _, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            assert label in metrics[name], f"{name} has no label {label}: {expression}"
            if not value.startswith("$"):
                words = WORDS.get(label, metrics[name][label])
                assert set(value.split("|")) <= words, f"{label} of {name} is never {value}: {expression}"
    for grouped in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        for label in filter(None, (label.strip() for label in grouped.split(","))):
            assert label in known, f"nothing here has the label {label}: {expression}"


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def expressions(part: object) -> Iterator[str]:
    """Every `expr` of the dashboard."""
    if isinstance(part, dict):
        if isinstance(part.get("expr"), str):
            yield part["expr"]
        for value in part.values():
            yield from expressions(value)
    elif isinstance(part, list):
        for value in part:
            yield from expressions(value)


def test_alerts_name_what_exists(metrics: dict[str, Labels]) -> None:
    for rule in rules():
        check(rule["expr"], metrics)
        text = " ".join(rule["annotations"].values())
        for label in re.findall(r"\$labels\.(\w+)", text):
            named = [name for name in metrics if name in rule["expr"]]
            assert all(label in metrics[name] for name in named), (rule["alert"], label)


def test_the_dashboard_names_what_exists(metrics: dict[str, Labels]) -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    found = list(expressions(dashboard))
    assert len(found) > 20
    for expression in found:
        check(expression, metrics)
    for label in re.findall(r"\{\{(\w+)\}\}", json.dumps(dashboard)):
        assert any(label in labels for labels in metrics.values()), label
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_the_scrape_asks_the_web_process_with_its_token() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert (scrape["metrics_path"], scrape["authorization"]["type"]) == ("/metrics", "Bearer")
    assert "credentials_file" in scrape["authorization"]
    assert "credentials" not in scrape["authorization"], "a token is in no file of an example"
    assert config["rule_files"] == ["alerts.yml"]


def test_every_alert_leads_to_a_heading_of_the_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", page, re.M)}
    for rule in rules():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/operations.md"
        assert anchor in headings, rule["alert"]
    for anchor in re.findall(r"\]\(#([\w-]+)\)", page):
        assert anchor in headings


def test_the_page_has_every_metric_and_no_other(metrics: dict[str, Labels]) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    told = {re.sub(r"_(bucket|count|sum)$", "", name) if f"{name}" not in page else name for name in metrics}
    assert set(re.findall(r"`(seawall_\w+)`", page)) == told
