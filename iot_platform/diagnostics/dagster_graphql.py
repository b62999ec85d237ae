"""Questions to Dagster's web UI, as status and support bundle ask them."""

import json
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from iot_platform.settings import Settings


def ask(settings: Settings, query: str, seconds: float, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The answer (data, errors) within so many seconds. Raises ConnectionError."""
    url = f"{settings.dagster_url.rstrip('/')}/graphql"
    body = json.dumps({"query": query, "variables": dict(variables or {})}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own setting
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - as above
            return dict(json.load(answer))
    except (OSError, ValueError, HTTPException) as error:
        raise ConnectionError(f"{url} does not answer (IOT_DAGSTER_URL): {getattr(error, 'reason', error)}") from error
