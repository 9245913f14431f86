"""What a server says when it does not do what it is asked, told so that somebody can mend it.

A leaf module, and the one place that reads a server's error texts. They may hold the arguments of the command that
was refused: passwords, or what callers send. Those are cut off.
"""

from __future__ import annotations

import re

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from seawall.errors import BrokerRefused, BrokerUnavailable

__all__ = ["broken_off", "refused", "told"]

#: Refusals that pass: another client's script runs too long, the disk is full, a replica has lost its master or its peers.
_NOT_NOW = ("BUSY ", "MISCONF ", "NOREPLICAS ")
_CLUSTER = (AskError, ClusterCrossSlotError, ClusterDownError, TryAgainError)
_CLUSTER_SCRIPT = re.compile(r"non local key|do not hash to the same slot|undeclared key", re.I)
_UNKNOWN = re.compile(r"^(?:ERR )?unknown (?:redis )?command\b", re.I)
_FORBIDDEN = re.compile(r"can't run this command|no permissions? to|^NOPERM|^DENIED", re.I)
_NO_PASSWORD_GIVEN = re.compile(r"authentication required|must be called with the client already authenticated", re.I)
_NONE_WANTED = re.compile(r"without any password configured|no password is set", re.I)
_IN_SCRIPT = re.compile(r"\bscript\b", re.I)
#: What a TLS library has to say, such as "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)".
_TLS = re.compile(r"\[SSL: (?P<code>\w+)\]\s*(?P<text>[^(]*)")
_TLS_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": "name the certificates that it can be trusted by with ssl_ca_certs=/path in the URL",
    "WRONG_VERSION_NUMBER": "it does not speak TLS there, so its URL begins with redis://",
    "RECORD_LAYER_FAILURE": "it does not speak TLS there, so its URL begins with redis://",
    "CERTIFICATE_REQUIRED": "give it one with ssl_certfile=/path and ssl_keyfile=/path in the URL",
    "HANDSHAKE_FAILURE": "it may want a certificate: ssl_certfile=/path and ssl_keyfile=/path in the URL",
    "UNKNOWN_CA": "it does not know who issued ssl_certfile",
}
#: A connection that ended, which says nothing about TLS.
_TLS_ENDED = {"UNEXPECTED_EOF_WHILE_READING", "SYSCALL"}
#: Characters of a server's text; some are whole paragraphs.
_LONGEST = 200


def refused(error: ResponseError, where: str) -> BrokerUnavailable | None:
    """The error to raise for an answer that says no to whoever asks; None for one that is about the command itself.

    `where` is the broker's URL, fit to be shown.
    """
    # A script may have come half its way before it met what it may not do.
    written = bool(_IN_SCRIPT.search(str(error)))
    text = _shortened(error)
    if isinstance(error, ReadOnlyError) or text.startswith(_NOT_NOW):
        return BrokerUnavailable(f"the broker takes no writes now: {text}", written=False)
    if isinstance(error, _CLUSTER) or _CLUSTER_SCRIPT.search(text):
        what = f"is in cluster mode ({text}); Seawall needs a server that holds all keys itself"
    elif _UNKNOWN.search(text):
        what = f"does not have a command that Seawall needs: {text}"
    elif isinstance(error, NoPermissionError) or _FORBIDDEN.search(text):
        what = f"does not allow what Seawall needs: {text}"
    else:
        return None
    if written:
        what += "; `seawall check` names the command"
    return BrokerRefused(f"the broker at {where} {what}", written=written)


def broken_off(error: Exception, where: str, *, written: bool) -> BrokerUnavailable:
    """The error to raise when a connection could not be made, or ended."""
    text = _shortened(error)
    if isinstance(error, BusyLoadingError):
        return BrokerUnavailable("the broker is loading its data after a restart", written=False)
    if isinstance(error, AuthenticationError):
        return BrokerRefused(f"the broker at {where} {_about_password(text)}", written=False)
    if isinstance(error, ResponseError):
        return refused(error, where) or BrokerRefused(
            f"the broker at {where} refused the connection: {text}", written=False
        )
    tls = _TLS.search(str(error))
    if tls is not None and tls["code"] not in _TLS_ENDED:
        advice = next((f"; {text}" for part, text in _TLS_ADVICE.items() if part in tls["code"]), "")
        text = tls["text"].strip(" '.,\"") or tls["code"]
        return BrokerRefused(f"the broker at {where} cannot be reached over TLS: {text}{advice}", written=written)
    hint = _hint(error) if where.startswith("rediss://") else ""
    return BrokerUnavailable(f"the broker at {where} cannot be reached: {text}{hint}", written=written)


def _shortened(error: Exception) -> str:
    """The same, and from now on the error itself says no more, for those who look at causes and tracebacks."""
    text = told(error)
    if isinstance(error, RedisError):
        error.args = (text,)
    return text


def told(error: Exception) -> str:
    """The server's words in short, without a command's arguments and without places inside of our scripts."""
    text = re.split(r",? with args beginning with|(?:,? |^)script: [0-9a-f]{8,}|, on @user_script", str(error))[0]
    return text.strip()[:_LONGEST] or type(error).__name__


def _hint(error: Exception) -> str:
    """What a connection over TLS that ended, or never began, may want to say."""
    if "EOF occurred" in str(error):
        return "; if it wants a certificate, name one with ssl_certfile=/path and ssl_keyfile=/path in the URL"
    if "handshake" in str(error.__context__):
        return "; there is somebody, but no TLS: if it speaks none, its URL begins with redis://"
    return ""


def _about_password(text: str) -> str:
    if _NO_PASSWORD_GIVEN.search(text):
        return "wants a user and a password, and the URL names none"
    if _NONE_WANTED.search(text):
        return "has no password for the default user, and the URL names one; name the user too, or leave both out"
    return f"refused the user or the password: {text}"
