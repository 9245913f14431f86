"""The few lines that must reach somebody, even in a program that has not configured its logging."""

from __future__ import annotations

import logging
import sys

__all__ = ["tell"]


def tell(logger: logging.Logger, level: int, message: str, *args: object) -> None:
    """Log it; where nobody listens, write it to standard error. For calls that are, or will be, lost.

    Everything else keeps to a library's manners: silent until the application wants to hear it.
    """
    logger.log(level, message, *args)
    if not _is_heard(logger) and sys.stderr is not None:
        print(f"seawall: {message % args if args else message}", file=sys.stderr)


def _is_heard(logger: logging.Logger) -> bool:
    """Whether a handler other than a NullHandler is on the record's way up."""
    at: logging.Logger | None = logger
    while at is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in at.handlers):
            return True
        at = at.parent if at.propagate else None
    return False
