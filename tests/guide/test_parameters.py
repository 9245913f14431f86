"""The guide: the client's parameters, in their order, with their defaults."""

from __future__ import annotations

import inspect

import pytest

import seawall
import service_utils
from seawall import ResilientServiceClient

PARAMETERS = {
    "service_name": None,
    "max_retries": 3,
    "timeout": 10,
    "failure_threshold": 5,
    "recovery_timeout": 60,
}


def test_order_and_defaults_are_the_guides() -> None:
    parameters = list(inspect.signature(ResilientServiceClient).parameters.values())
    own = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in own] == ["base_url", *PARAMETERS]
    assert {p.name: p.default for p in own[1:]} == PARAMETERS


@pytest.mark.usefixtures("mode")
def test_parameters_by_position_and_by_keyword_mean_the_same() -> None:
    by_position = ResilientServiceClient("http://git:6005", "Git Server", 2, 30, 10, 90)
    by_keyword = ResilientServiceClient(
        base_url="http://git:6005",
        service_name="Git Server",
        max_retries=2,
        timeout=30,
        failure_threshold=10,
        recovery_timeout=90,
    )
    assert by_position.service == by_keyword.service
    assert by_position.service.timeout == (30, 30)
    assert (by_position.service.failure_threshold, by_position.service.recovery_timeout) == (10, 90)


@pytest.mark.usefixtures("mode")
def test_the_printed_url_can_be_declared(caplog: pytest.LogCaptureFixture) -> None:
    """`http://service:port` stands for any URL in the guide; a warning says so to whoever leaves it in."""
    client = ResilientServiceClient("http://service:port", "Service Name")
    assert client.service.origin == "http://service:80"
    assert "placeholder" in caplog.text


def test_a_single_attempt_is_the_least() -> None:
    with pytest.raises(ValueError, match="it counts attempts"):
        ResilientServiceClient("http://git:6005", max_retries=0)


@pytest.mark.usefixtures("mode")
def test_a_client_without_a_name_is_named_after_its_address() -> None:
    client = ResilientServiceClient("http://chroma:6003")
    assert client.get_status()["service"] == "chroma:6003"
    assert client.key == "chroma-6003"


def test_the_import_of_the_guide_still_works() -> None:
    assert service_utils.ResilientServiceClient is seawall.ResilientServiceClient
    assert service_utils.ServiceUnavailable is seawall.ServiceUnavailable
