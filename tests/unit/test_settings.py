"""Settings: where each value comes from, and what is said about wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from seawall.actors.service import Service
from seawall.declared import declared_services, table_problems
from seawall.errors import ConfigurationError
from seawall.service_tables import SERVICE_KEYS
from seawall.settings import SETTINGS, Problem, Settings, load_settings, problems


def load(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
    (folder / "seawall.toml").write_text(toml)
    return load_settings(arguments, environ or {}, folder)


def found(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None, **arguments: Any) -> list[str]:
    (folder / "seawall.toml").write_text(toml)
    return [str(problem) for problem in problems(arguments, environ or {}, folder)]


def test_defaults_need_no_file_and_no_environment(tmp_path: Path) -> None:
    settings = load_settings({}, {}, tmp_path)
    assert settings.broker_url == "memory://"
    assert settings.memory_mode
    assert settings.namespace == "seawall"
    assert settings.data_dir == tmp_path / ".seawall"
    assert settings.config is None
    assert set(settings.sources) == set(SETTINGS)
    assert set(settings.sources.values()) == {"default"}


def test_argument_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    toml = "web_port = 1\nworkers = 3\nnamespace = 'file'"
    environ = {"SEAWALL_WEB_PORT": "2", "SEAWALL_WORKERS": "4"}
    settings = load(tmp_path, toml, environ, web_port=5, workers=None)
    assert (settings.web_port, settings.workers, settings.namespace) == (5, 4, "file")
    assert settings.sources["web_port"] == "argument"
    assert settings.sources["workers"] == "environment SEAWALL_WORKERS"
    assert settings.sources["namespace"] == "seawall.toml"
    assert settings.sources["log_level"] == "default"
    assert settings.config == tmp_path / "seawall.toml"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_can_be_set_by_its_environment_variable(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.toml").touch()
    values = {
        "broker_url": "redis://cache:6379/1",
        "log_format": "json",
        "log_level": "DEBUG",
        "config": str(tmp_path / "other.toml"),
        "require_broker": "no",
        "allow_eviction": "yes",
        "web_open": "true",
        "alerts_webhook": "https://ops.example.com/hook",
        "alerts_on": "open,close",
        "alerts_callable": "app.pager:page",
        "metrics": "on",
    }
    variable = f"SEAWALL_{name.upper()}"
    settings = load_settings({}, {variable: values.get(name, "7")}, tmp_path)
    assert settings.sources[name] == f"environment {variable}"


def test_variable_that_is_empty_counts_as_not_set(tmp_path: Path) -> None:
    settings = load_settings({}, {"SEAWALL_BROKER_URL": "", "SEAWALL_INTERNAL_TOKEN": ""}, tmp_path)
    assert settings.broker_url == "memory://"
    assert settings.internal_token is None


def test_file_named_by_the_environment_and_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "mine.toml"
    file.write_text("internal_token_file = 'token'\ndata_dir = '/var/lib/seawall'")
    settings = load_settings({}, {"SEAWALL_CONFIG": "etc/mine.toml"}, tmp_path)
    assert settings.config == file
    assert settings.internal_token_file == tmp_path / "etc" / "token"
    assert settings.data_dir == Path("/var/lib/seawall")
    assert settings.sources["data_dir"] == "mine.toml"


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    toml = """
        web_prot = 80
        workers = "two"
        internal_token = "secret"
        [services.chroma]
        url = "http://chroma:6003"
        max_retry = 3
        [services.git]
        timeout = -1
    """
    environ = {"SEAWALL_BROKER_ULR": "redis://x", "SEAWALL_LOG_LEVEL": "debgu", "SEAWALL_SOMEONE_ELSES": "1"}
    text = found(tmp_path, toml, environ)
    assert text == [
        "SEAWALL_BROKER_ULR is not a setting; did you mean 'SEAWALL_BROKER_URL'?",
        "SEAWALL_LOG_LEVEL must be debug or info or warning or error or critical, not 'debgu'; did you mean 'debug'?",
        "SEAWALL_SOMEONE_ELSES is not a setting",
        "seawall.toml: web_prot is not a setting; did you mean 'web_port'?",
        "seawall.toml: workers must be a whole number from 1 to 256, not 'two'",
        "seawall.toml: internal_token may not be in the file; set SEAWALL_INTERNAL_TOKEN, or internal_token_file"
        " to a file that holds it",
        "seawall.toml: services.chroma.max_retry is not a key of a service; did you mean 'max_retries'?",
        "seawall.toml: services.git.timeout must be a number of seconds, more than 0, not -1",
        "seawall.toml: services.git has no url",
    ]
    with pytest.raises(ConfigurationError, match="8 settings are wrong:\n  SEAWALL_BROKER_ULR is not a setting"):
        load(tmp_path, toml, environ)


def test_variable_like_no_setting_is_only_a_warning(tmp_path: Path) -> None:
    environ = {"SEAWALL_SOMEONE_ELSES": "1"}
    assert problems({}, environ, tmp_path) == [Problem("warning", "SEAWALL_SOMEONE_ELSES", "is not a setting")]
    assert load_settings({}, environ, tmp_path).broker_url == "memory://"


def test_argument_that_is_no_setting_is_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'web_prot' is no setting; did you mean 'web_port'"):
        load_settings({"web_prot": 1}, {}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SEAWALL_BROKER_URL", "amqp://mq", "amqp:// is none of them"),
        ("SEAWALL_BROKER_URL", "reddis://x", "did you mean 'redis'"),
        ("SEAWALL_BROKER_URL", "localhost:6379", "a URL without a scheme"),
        ("SEAWALL_NAMESPACE", "Sea wall", "must be at most 64 of a-z"),
        ("SEAWALL_REQUIRE_BROKER", "maybe", "must be true or false, not 'maybe'"),
        ("SEAWALL_WEB_PORT", "70000", "must be a whole number from 0 to 65535, not 70000"),
        ("SEAWALL_WEB_PORT", "8610.5", "must be a whole number"),
        ("SEAWALL_SHUTDOWN_TIMEOUT", "0", "more than 0"),
        ("SEAWALL_SHUTDOWN_TIMEOUT", "inf", "more than 0, not inf"),
        ("SEAWALL_EXIT_DRAIN", "nan", "0 or more"),
        ("SEAWALL_INTERNAL_TOKEN_HEADER", "X Token", "must be a header name"),
        ("SEAWALL_CONFIG", "missing.toml", "cannot be read: No such file"),
    ],
)
def test_wrong_value_is_named_with_what_would_be_right(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {variable: value}, tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("web_port = ", "is not valid TOML"),
        ("require_broker = 'yes'", "require_broker must be true or false, not 'yes'"),
        ("web_port = true", "web_port must be a whole number"),
        ("namespace = 3", "namespace must be text, not a number"),
        ("config = 'x'", "config may not be in the file; set SEAWALL_CONFIG"),
        ("services = 3", "services must be tables"),
        ("[[services]]\nurl = 'http://x'", "services must be tables, such as [services.chroma]"),
        ("[services]\nchroma = 'http://x'", "services.chroma must be a table with a url"),
        ("[servics.a]", "servics is not a setting; did you mean 'services'?"),
        ("broker_url = 'redis://${NOWHERE}'", "names the environment variable NOWHERE, which is not set"),
        ("broker_url = 'redis://${NO WHERE}'", "holds a ${ that is no ${NAME}"),
    ],
)
def test_wrong_file_is_explained(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, toml)
    assert said in str(caught.value)


def test_broker_is_required_where_it_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SEAWALL_BROKER_URL must name a server"):
        load_settings({}, {"SEAWALL_REQUIRE_BROKER": "1"}, tmp_path)
    load_settings({}, {"SEAWALL_REQUIRE_BROKER": "1", "SEAWALL_BROKER_URL": "unix:///run/x.sock"}, tmp_path)


def test_two_tokens_are_a_warning(tmp_path: Path) -> None:
    environ = {"SEAWALL_INTERNAL_TOKEN": "canary", "SEAWALL_INTERNAL_TOKEN_FILE": "token"}
    (problem,) = problems({}, environ, tmp_path)
    assert problem.severity == "warning"
    assert "SEAWALL_INTERNAL_TOKEN is set" in str(problem)


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    environ = {"SEAWALL_INTERNAL_TOKEN": "canary", "SEAWALL_BROKER_URL": "redis://me:canary@host/0?password=canary"}
    toml = "[services.git]\nurl = 'http://u:canary@git:6005'"
    settings = load(tmp_path, toml, environ)
    assert "canary" not in repr(settings).replace(repr(settings.services), "")
    odd = Settings(broker_url="redis://:can/ary@host/0")
    assert odd.rows()[0][1] == "redis://***@host/0"
    rows = {name: (value, source) for name, value, source in settings.rows()}
    assert "canary" not in str(rows)
    assert rows["internal_token"] == ("(hidden)", "environment SEAWALL_INTERNAL_TOKEN")
    assert rows["broker_url"][0] == "redis://***@host/0?password=***"
    assert rows["services.git.url"] == ("http://***@git:6005", "seawall.toml")


def test_urls_of_the_file_are_completed_from_the_environment(tmp_path: Path) -> None:
    toml = """
        broker_url = "redis://:${REDIS_PASSWORD}@cache/0"
        [services.chroma]
        url = "${CHROMA_SERVER_URL:-http://chroma:6003}"
        [services.git]
        url = "http://${GIT_HOST:-git}:6005"
        name = "${GIT_HOST}"
    """
    settings = load(tmp_path, toml, {"REDIS_PASSWORD": "pw", "GIT_HOST": "forge", "CHROMA_SERVER_URL": ""})
    assert settings.broker_url == "redis://:pw@cache/0"
    urls = {table.key: table.values["url"] for table in settings.services}
    assert urls == {"chroma": "http://chroma:6003", "git": "http://forge:6005"}
    assert settings.services[1].values["name"] == "${GIT_HOST}"


def test_table_becomes_a_service(tmp_path: Path) -> None:
    toml = """
        [services.chroma]
        url = "http://chroma:6003"
        name = "Chroma Server"
        timeout = [1, 5]
        allow_headers = ["Authorization"]
        health_path = "/ready"
        breaker = false
        [services.git]
        url = "http://git:6005"
    """
    chroma, git = declared_services(load(tmp_path, toml).services)
    assert (chroma.key, chroma.name, chroma.origin) == ("chroma", "Chroma Server", "http://chroma:6003")
    assert chroma.timeout == (1.0, 6.0)
    assert chroma.allow_headers == {"authorization"}
    assert (chroma.health_path, chroma.breaker) == ("/ready", False)
    assert git == Service(key="git", name="git", base_url="http://git:6005")


def test_every_service_key_fills_a_field(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "url": "http://x",
        "name": "X",
        "health_path": "/h",
        "idempotency": "none",
        "allow_headers": ["Cookie"],
        "when_broker_down": "raise",
        "breaker": False,
        "trust_env": True,
        "jitter": 0.05,
        "retry_on": [503, "timeout"],
        "internal_token": False,
    }
    toml = "[services.x]\n" + "".join(
        f"{key} = {str(v).lower() if isinstance(v, bool) else repr(v)}\n"
        for key, v in ((key, values.get(key, 7)) for key in SERVICE_KEYS)
    )
    (service,) = declared_services(load(tmp_path, toml).services)
    plain = Service(key="x", name="", base_url="")
    for key in SERVICE_KEYS:
        field = "base_url" if key == "url" else key
        assert getattr(service, field) != getattr(plain, field), key


def test_keys_and_urls_that_cannot_be_used(tmp_path: Path) -> None:
    toml = "[services.Chroma]\nurl = 'chroma:6003'\n[services.git]\nurl = 'ftp://git'"
    settings = load(tmp_path, toml)
    assert [problem.setting for problem in table_problems(settings.services)] == [
        "seawall.toml: services.Chroma",
        "seawall.toml: services.Chroma.url",
        "seawall.toml: services.git.url",
    ]
    with pytest.raises(ConfigurationError, match="must be lower-case letters"):
        declared_services(settings.services)


def test_environment_is_read_when_asked_and_not_at_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEAWALL_NAMESPACE", "later")
    assert load_settings().namespace == "later"
