"""Writes console/openapi.json from the API's routes: `make openapi` does it, a contract test keeps it equal to the code."""

import json
from pathlib import Path
from typing import Any, Final

from iot_platform.api.app import create_api
from iot_platform.api.state import State
from iot_platform.settings import Settings

TARGET: Final = Path(__file__).resolve().parents[1] / "console" / "openapi.json"


def render() -> str:
    """The text of console/openapi.json; without the version, which would change it with each release."""
    document: dict[str, Any] = create_api(State(Settings())).openapi()
    document["info"]["version"] = "1"
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), "utf-8")
