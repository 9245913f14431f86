"""`seawall call`: a small curl that goes through the queue."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from typing import Any

import click
import requests

from seawall.boot import boot
from seawall.cli.completion import complete_service
from seawall.cli.options import module_option, settings_options
from seawall.client import ResilientServiceClient
from seawall.direct import ran_here
from seawall.errors import ConfigurationError
from seawall.exits import Exit
from seawall.kinds import nearest
from seawall.runtime import registry
from seawall.settings import Settings

__all__ = ["call"]

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Call a service through its queue, like a small curl.")
@click.argument("service", shell_complete=complete_service)
@click.argument("method")
@click.argument("path")
@click.option("-d", "--data", metavar="TEXT", help="A body; @FILE reads it from a file, @- from standard input.")
@click.option("-j", "--json", "json_text", metavar="JSON", help="A JSON body, with its Content-Type.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header; may be repeated.")
@click.option("-i", "--include", is_flag=True, help="Print the answer's status and headers too.")
@click.option("--as-json", is_flag=True, help="Print the whole answer, or why there is none, as one JSON object.")
@click.option("--timeout", type=_POSITIVE, metavar="SECONDS", help="For one attempt. [default: the service's]")
@click.option("--deadline", type=_POSITIVE, metavar="SECONDS", help="For all of it.")
@module_option
@settings_options
def call(
    service: str,
    method: str,
    path: str,
    modules: tuple[str, ...],
    data: str | None,
    json_text: str | None,
    headers: tuple[str, ...],
    include: bool,
    as_json: bool,
    timeout: float | None,
    deadline: float | None,
    **arguments: Any,
) -> int:
    """Call SERVICE through its queue and print the answer: `seawall call chroma GET /ready -m app.services`.

    Retries and the breaker are those of every caller. With no broker, or one that is away, this process makes the call
    itself, and says so. Exits with 0
    for an answer below 400, with 1 for another answer, and with 69 when there is none: the breaker is open, the service
    or the broker is away, the deadline has passed.
    """
    options = _options(data, json_text, headers, timeout, deadline)
    settings, _ = boot(arguments, modules, process="call", durable=False, for_people=True)
    client = _client(service)
    started = time.monotonic()
    try:
        response = client.request(method.upper(), path, **options)
    except (TypeError, ValueError) as error:  # some of requests' own are both: what was asked for is wrong
        raise click.UsageError(str(error)) from error
    except requests.HTTPError as error:
        response = error.response
    except requests.RequestException as error:
        _tell_where(settings)
        click.echo(f"seawall: {_named(error)}", err=True)
        if as_json:
            click.echo(json.dumps({"service": service, "error": type(error).__name__, "message": _named(error)}))
        return Exit.UNAVAILABLE
    _tell_where(settings)
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps(_as_json(service, response, seconds)))
    else:
        if include:
            _print_head(response, seconds)
        _print_body(response)
    return Exit.OK if response.status_code < 400 else Exit.FAILED


def _tell_where(settings: Settings) -> None:
    """That the call went past the queue, if it did."""
    if settings.memory_mode:
        click.echo("seawall: there is no broker; this process made the call itself, without the queue", err=True)
    elif ran_here():
        click.echo("seawall: the broker is away; this process made the call itself, without the queue", err=True)


def _client(key: str) -> ResilientServiceClient:
    if registry.find(key) is None:
        known = [service.key for service in registry.all()]
        listed = ", ".join(known) or "nothing"
        raise ConfigurationError(
            f"service {key!r} is not declared{nearest(key, known)} (declared: {listed}); name the module that declares "
            "it with --module, or put it into seawall.toml"
        )
    return ResilientServiceClient.named(key)


def _options(
    data: str | None, json_text: str | None, headers: tuple[str, ...], timeout: float | None, deadline: float | None
) -> Any:
    """The keywords of `client.request`. Raises click's usage errors."""
    if data is not None and json_text is not None:
        raise click.UsageError("give either --data or --json")
    given: dict[str, Any] = {"timeout": timeout, "deadline": deadline}
    options = {name: value for name, value in given.items() if value is not None}
    options["headers"] = dict(_header(header) for header in headers)
    if json_text is not None:
        options["data"] = _json(json_text)
        options["headers"] = {"Content-Type": "application/json", **options["headers"]}
    if data is not None:
        options["data"] = _body(data)
    return options


def _header(given: str) -> tuple[str, str]:
    name, colon, value = given.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f"{given!r} must be NAME:VALUE", param_hint="'--header'")
    return name.strip(), value.strip()


def _json(given: str) -> bytes:
    """As it was written, once it is known to be JSON."""
    body = _body(given)
    try:
        json.loads(body)
    except ValueError as error:
        raise click.BadParameter(f"this is not JSON: {error}", param_hint="'--json'") from None
    return body


def _body(given: str) -> bytes:
    if given == "@-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode("utf-8", "surrogateescape")
    try:
        with open(given[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise click.UsageError(f"{given[1:]} cannot be read: {error.strerror}") from None


def _named(error: Exception) -> str:
    """The error with its kind, without addresses of objects as some libraries' texts have them."""
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>:? ?", "", str(error))
    return f"{type(error).__name__}: {text}"


def _as_json(service: str, response: requests.Response, seconds: float) -> dict[str, Any]:
    """The answer; its body as text where it is UTF-8, else as `body_base64`."""
    try:
        body = {"body": response.content.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(response.content).decode()}
    about = {"service": service, "status": response.status_code, "reason": response.reason}
    return about | {"headers": dict(response.headers), "seconds": round(seconds, 6)} | body


def _print_head(response: requests.Response, seconds: float) -> None:
    click.echo(f"HTTP {response.status_code} {response.reason}")
    for name, value in response.headers.items():
        click.echo(f"{name}: {value}")
    click.echo()
    click.echo(f"seawall: answered within {seconds * 1000:.1f} ms", err=True)


def _print_body(response: requests.Response) -> None:
    """As it came; a terminal gets the line break that is missing."""
    sys.stdout.flush()
    sys.stdout.buffer.write(response.content)
    if response.content and not response.content.endswith(b"\n") and sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
