"""For Flask: `app.register_blueprint(seawall.contrib.flask.status)`. Answers `GET /v1/api/status/services`."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from seawall.contrib.status import PATH, declared_status

__all__ = ["status"]

status = Blueprint("seawall_status", __name__)


@status.get(PATH)
def services() -> Response:
    """The breaker of every declared service, by its key."""
    return jsonify(declared_status())
