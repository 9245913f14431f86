"""The guide's status endpoint, ready for an application's own framework: `flask`, `starlette` (and FastAPI), `django`."""
