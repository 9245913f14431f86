"""Reading the fields of a JSON object, with an error that names the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["Problem", "checked", "text", "texts", "whole_number"]

T = TypeVar("T")


class Problem(Exception):
    """The request cannot be served; answered as `status` with the message under "error"."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def text(fields: Mapping[str, Any], name: str, *, default: str | None = None, longest: int = 1_000_000) -> str:
    """The text under `name`. Problem 400 when it is missing without a default, no text, or too long."""
    value = fields.get(name, default)
    if not isinstance(value, str) or len(value) > longest:
        raise Problem(400, f"{name} must be text of at most {longest} characters")
    return value


def texts(fields: Mapping[str, Any], name: str, *, most: int = 1000) -> list[str]:
    """The list of texts under `name`. Problem 400 when it is missing, empty, too long or holds anything else."""
    value = fields.get(name)
    if not isinstance(value, list) or not 0 < len(value) <= most or not all(isinstance(item, str) for item in value):
        raise Problem(400, f"{name} must be a list of 1 to {most} texts")
    return value


def whole_number(fields: Mapping[str, Any], name: str, *, low: int, high: int, default: int | str | None = None) -> int:
    """A whole number from JSON, or from a query string, where it is text. Problem 400 outside of `low` to `high`."""
    value = fields.get(name, default)
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Problem(400, f"{name} must be a whole number from {low} to {high}")
    return value


def checked(check: Callable[..., T], *args: Any) -> T:
    """The check's result; its ValueError becomes a 400."""
    try:
        return check(*args)
    except ValueError as error:
        raise Problem(400, str(error)) from None
