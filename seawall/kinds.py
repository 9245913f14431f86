"""What the value of a setting may be: how text from the environment becomes a value, and what is refused.

A leaf module. Every refusal is a ValueError whose text completes "<setting> ...", such as "must be a whole number".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "PATH",
    "PREFIX",
    "Kind",
    "Problem",
    "Setting",
    "choice",
    "expand",
    "flag",
    "names",
    "nearest",
    "number",
    "seconds",
    "seconds_or_pair",
    "text",
    "whole",
    "words",
]

#: What the environment variables of Seawall start with.
PREFIX = "SEAWALL_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the configuration. `setting` is as it was written; `text` completes the sentence."""

    severity: Literal["error", "warning"]
    setting: str
    text: str

    def __str__(self) -> str:
        return f"{self.setting} {self.text}"


@dataclass(frozen=True, slots=True)
class Kind:
    """`says` describes the value to people; `check` returns the value or raises ValueError; `read` makes it from text."""

    says: str
    check: Callable[[object], Any]
    read: Callable[[str], object]

    def value(self, given: object, *, from_text: bool) -> Any:
        """The checked value. With `from_text`, text is read first, as in an environment variable."""
        return self.check(self.read(given) if from_text and isinstance(given, str) else given)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting. `environment_only` ones may not be in a file; `expands` replaces ${NAME} there."""

    name: str
    kind: Kind
    help: str
    default: Any = None
    secret: bool = False
    environment_only: bool = False
    expands: bool = False
    table: str = ""
    """The table of the file that it stands in, and its name begins with; most stand in none."""

    @property
    def variable(self) -> str:
        """The environment variable: `web_port` -> `SEAWALL_WEB_PORT`."""
        return PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """Its name in the file, in its table: `alerts_webhook` -> `webhook`."""
        return self.name.removeprefix(f"{self.table}_") if self.table else self.name


def text(says: str = "text", *, pattern: str = "", like: str = "") -> Kind:
    """Text that is not empty and, with a pattern, matches it whole; `like` is shown when it does not."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {_named(value)}")
        if not value.strip():
            raise ValueError("must not be empty")
        if pattern and not re.fullmatch(pattern, value):
            raise ValueError(f"must be {like or says}, not {value!r}")
        return value

    return Kind(says, check, lambda given: given)


def flag() -> Kind:
    """true or false; as text also 1, yes, on, 0, no, off."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {value!r}")
        return value

    def read(given: str) -> object:
        word = given.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else given

    return Kind("true or false", check, read)


def whole(low: int, high: int | None = None) -> Kind:
    """A whole number from `low` to `high`."""
    says = f"a whole number from {low} to {high}" if high is not None else f"a whole number, {low} or more"

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be {says}, not {value!r}")
        if value < low or (high is not None and value > high):
            raise ValueError(f"must be {says}, not {value}")
        return value

    return Kind(says, check, _read_number)


def number(low: float, high: float, says: str) -> Kind:
    """A number from `low` to `high`, both included."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"must be {says}, not {value!r}")
        return float(value)

    return Kind(says, check, _read_number)


def seconds(*, zero: bool = False) -> Kind:
    """A finite number of seconds, more than 0 unless `zero` allows that."""
    says = "seconds, 0 or more" if zero else "seconds, more than 0"

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number of {says}, not {value!r}")
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise ValueError(f"must be a number of {says}, not {value}")
        return float(value)

    return Kind(says, check, _read_number)


def seconds_or_pair() -> Kind:
    """Seconds, or [connect, read] in seconds."""
    one = seconds()
    says = "seconds, or [connect, read] in seconds"

    def check(value: object) -> float | tuple[float, float]:
        if not isinstance(value, (list, tuple)):
            return float(one.check(value))
        if len(value) != 2:
            raise ValueError(f"must be {says}, not {list(value)!r}")
        return one.check(value[0]), one.check(value[1])

    return Kind(says, check, _read_number)


def choice(*words: str) -> Kind:
    """One of the words; capitals do not matter."""
    says = " or ".join(words)

    def check(value: object) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in words:
            raise ValueError(f"must be {says}, not {value!r}{nearest(word, words)}")
        return word

    return Kind(says, check, lambda given: given)


def words(*known: str) -> Kind:
    """A list of some of these words, without repetition; as text with commas between them."""
    says = "a list of some of " + ", ".join(known)

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
            raise ValueError(f"must be {says}, not {value!r}")
        for part in value:
            if part not in known:
                raise ValueError(f"must be {says}; {part!r} is none of them{nearest(part, known)}")
        return tuple(dict.fromkeys(value))

    return Kind(says, check, lambda given: [part.strip() for part in given.split(",")])


def _path() -> Kind:

    def check(value: object) -> Path:
        if not isinstance(value, (str, Path)) or not str(value).strip():
            raise ValueError(f"must be a path, not {value!r}")
        return Path(value).expanduser()

    return Kind("a path", check, lambda given: given)


#: A path; `~` is the home folder. Whoever reads it decides what a relative one is relative to.
PATH = _path()


def names(says: str) -> Kind:
    """A list of names; as text with commas between them."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) and part for part in value):
            raise ValueError(f"must be a list of {says}, not {value!r}")
        return tuple(value)

    return Kind(f"a list of {says}", check, lambda given: [part.strip() for part in given.split(",")])


def numbers_and_names(says: str) -> Kind:
    """A list of whole numbers and names; what they mean is for others to say."""

    def check(value: object) -> tuple[int | str, ...]:
        good = isinstance(value, (list, tuple)) and all(
            isinstance(part, (int, str)) and not isinstance(part, bool) for part in value
        )
        if not good:
            raise ValueError(f"must be a list of {says}, not {value!r}")
        return tuple(value)  # type: ignore[arg-type]  # a list or a tuple, see above

    return Kind(f"a list of {says}", check, lambda given: [part.strip() for part in given.split(",")])


def expand(value: str, environ: Mapping[str, str]) -> str:
    """The text with `${NAME}` and `${NAME:-default}` replaced from the environment. Raises ValueError for a name not set.

    As in a shell, a variable that is set but empty takes the default.

    >>> expand("http://${HOST:-chroma}:6003", {})
    'http://chroma:6003'
    """

    def replaced(match: re.Match[str]) -> str:
        found = environ.get(match["name"]) or match["default"]
        if found is None:
            raise ValueError(f"names the environment variable {match['name']}, which is not set")
        return found

    rest = _REFERENCE.sub("", value)
    if "${" in rest:
        raise ValueError("holds a ${ that is no ${NAME} and no ${NAME:-default}")
    return _REFERENCE.sub(replaced, value)


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """`; did you mean 'x'?` for the known word that is most like this one; empty when none is.

    `prefix` is put before the word that is shown, and plays no part in the likeness.

    >>> nearest("max_retry", ["max_retries", "timeout"])
    "; did you mean 'max_retries'?"
    """
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {prefix + found[0]!r}?" if found else ""


def _read_number(given: str) -> object:
    """The number that the text spells, whole where it can be; the text itself where it spells none."""
    for make in (int, float):
        try:
            return make(given.strip())
        except ValueError:
            continue
    return given


def _named(value: object) -> str:
    return {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}.get(
        type(value), type(value).__name__
    )
