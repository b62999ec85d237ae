""".env.example is the code's settings, all of them."""

import runpy

from ingest_daemon.home import PACKAGES


def test_env_example_equals_the_code() -> None:
    rendered = runpy.run_path(str(PACKAGES / "scripts" / "env_example.py"))["render"]()
    assert (PACKAGES / ".env.example").read_text("utf-8") == rendered, "run `make env-example`"
