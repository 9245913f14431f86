"""The alerts' webhook as a service of its own: declared by every process from the settings, so that any worker serves it."""

from __future__ import annotations

from urllib.parse import urlsplit

from requests.utils import requote_uri

from seawall.actors.service import Service, origin_of
from seawall.actors.signing import SIGNATURE_HEADER, Signing
from seawall.actors.token import TokenSource
from seawall.errors import ConfigurationError
from seawall.settings import Settings

__all__ = ["ALERTS_KEY", "PLACEHOLDER", "alert_service", "hook_problem"]

#: The service's key; nothing is told of this one, or alerts about alerts would never end.
ALERTS_KEY = "seawall-alerts"
#: The path that travels in the queue, and that logs and dead letters show: the webhook's own may be its secret.
PLACEHOLDER = "/webhook"
#: Seconds before the webhook is tried again after a round of attempts; doubled from round to round, up to 5 minutes.
RECOVERY_TIMEOUT = 15.0
#: Seconds for which an alert is worth being delivered.
EXPIRES_IN = 24 * 3600.0
#: After which an attempt is repeated: what may pass, and what is a mistake of the receiver's configuration.
RETRY_ON = (401, 403, 404, 408, 425, 429, 500, 502, 503, 504, "any")


def alert_service(settings: Settings) -> Service | None:
    """The service behind `[alerts] webhook`; None where there is none. Raises ConfigurationError."""
    url = settings.alerts_webhook
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"the webhook of alerts is no URL: {error}") from None
    key = TokenSource(
        SIGNATURE_HEADER, settings.alerts_secret, settings.alerts_secret_file, what="the alerts' signing key"
    )
    base_url = f"{parts.scheme}://{parts.netloc}"
    origin_of(base_url)
    return Service(
        key=ALERTS_KEY,
        name="Alerts webhook",
        base_url=base_url,
        recovery_timeout=RECOVERY_TIMEOUT,
        expires_in=EXPIRES_IN,
        retry_on=RETRY_ON,
        internal_token=False,
        signing=Signing(key),
        target=requote_uri((parts.path or "/") + (f"?{parts.query}" if parts.query else "")),
    )


def hook_problem(settings: Settings) -> str:
    """What is wrong with the webhook's URL, without its credentials; nothing where it can be used."""
    try:
        alert_service(settings)
    except ConfigurationError as error:
        return str(error)
    return ""
