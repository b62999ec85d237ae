"""`iot doctor` names what the decoder will refuse."""

from pathlib import Path

from iot_platform.diagnostics.doctor import _machine
from iot_platform.local.plan import make_plan
from iot_platform.settings import Settings


def test_an_entry_of_topic_codecs_that_means_nothing_is_bad(tmp_path: Path) -> None:
    def finding(topic: str) -> tuple[str, str]:
        settings = Settings(topic_codecs=({"topic": topic, "codec": "cbor"},), local_dir=tmp_path, cache_dir=tmp_path)
        return next((found.state, found.text) for found in _machine(make_plan(settings)) if found.what == "settings")

    assert finding("plant/#")[0] == "ok"
    state, text = finding("plant/#/x")
    assert (state, text.split(":")[0]) == ("bad", "IOT_TOPIC_CODECS[0].topic")
