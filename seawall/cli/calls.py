"""`seawall call`: a small curl that goes through the queue."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import requests

from seawall.boot import boot
from seawall.cli.options import settings_options
from seawall.client import ResilientServiceClient
from seawall.errors import BrokerUnavailable, ServiceUnavailable
from seawall.exits import Exit

__all__ = ["call"]


@click.command()
@click.argument("service")
@click.argument("method")
@click.argument("path")
@click.option("--module", "modules", multiple=True, help="A module that declares the service (or seawall.toml does).")
@click.option("-d", "--data", help="A body; @FILE reads it from a file, @- from standard input.")
@click.option("-j", "--json", "json_text", help="A JSON body.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header.")
@click.option("-i", "--include", is_flag=True, help="Print status and headers too.")
@click.option("--timeout", type=float, help="Seconds for one attempt.")
@click.option("--deadline", type=float, help="Seconds for all of it.")
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
    timeout: float | None,
    deadline: float | None,
    **arguments: Any,
) -> int:
    """Call SERVICE through its queue and print the answer, as in `seawall call chroma GET /ready`.

    Exits with 0 for an answer below 400, with 1 for another answer or an error, with 69 when the breaker is open or the
    broker is away.
    """
    boot({"log_level": "error", **{k: v for k, v in arguments.items() if v}}, modules, process="call", durable=False)
    client = ResilientServiceClient.named(service)
    options = _options(data, json_text, headers, timeout, deadline)
    started = time.monotonic()
    try:
        response = client.request(method.upper(), path, **options)
    except (ServiceUnavailable, BrokerUnavailable) as error:
        click.echo(f"seawall: {error}", err=True)
        return Exit.UNAVAILABLE
    except requests.HTTPError as error:
        response = error.response
    except requests.RequestException as error:
        click.echo(f"seawall: {type(error).__name__}: {error}", err=True)
        return Exit.FAILED
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    _print(response, include, time.monotonic() - started)
    return Exit.OK if response.status_code < 400 else Exit.FAILED


def _options(
    data: str | None, json_text: str | None, headers: tuple[str, ...], timeout: float | None, deadline: float | None
) -> Any:
    options: dict[str, Any] = {}
    if json_text is not None:
        options["data"] = json_text.encode()
        options["headers"] = {"Content-Type": "application/json"}
    if data is not None:
        options["data"] = _body(data)
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.UsageError(f"--header {header!r} must be NAME:VALUE")
        options.setdefault("headers", {})[name.strip()] = value.strip()
    if timeout is not None:
        options["timeout"] = timeout
    if deadline is not None:
        options["deadline"] = deadline
    return options


def _body(data: str) -> bytes:
    if data == "@-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        with click.open_file(data[1:], "rb") as file:
            return bytes(file.read())
    return data.encode()


def _print(response: requests.Response, include: bool, seconds: float) -> None:
    if include:
        click.echo(f"HTTP {response.status_code} {response.reason}  ({seconds * 1000:.1f} ms)")
        for name, value in response.headers.items():
            click.echo(f"{name}: {value}")
        click.echo()
    sys.stdout.flush()
    sys.stdout.buffer.write(response.content)
    if response.content and not response.content.endswith(b"\n") and sys.stdout.isatty():
        click.echo()
    sys.stdout.buffer.flush()
