""".env.example is the code's settings, all of them."""

import runpy

from iot_platform.settings import PROJECT_ROOT


def test_env_example_equals_the_code() -> None:
    rendered = runpy.run_path(str(PROJECT_ROOT / "scripts" / "env_example.py"))["render"]()
    assert (PROJECT_ROOT / ".env.example").read_text("utf-8") == rendered, "run `make env-example`"
