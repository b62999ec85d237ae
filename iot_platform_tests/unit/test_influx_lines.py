"""Line protocol: what is written can be read back, and what is refused is found by halves."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from iot_platform.influx.delivery import Delivery
from iot_platform.influx.errors import InfluxConfigError, InfluxRefusedError, InfluxUnavailableError
from iot_platform.influx.lines import Row, line, name_of, requests, series_key, tag_value
from iot_platform.influx.shipping import duration_us
from iot_platform.influx.target import targets
from iot_platform.settings import Settings

KEY = ("d", "m", "p", "t")


@given(st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("%\\\n 4aF,="))))
def test_a_name_is_read_back_from_its_tag(name: str) -> None:
    tag = tag_value(name)
    assert name_of(tag) == name
    assert not re.search(r"[\x00-\x1f\x7f\\]", tag)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((21.0, None, None), "value=21.0"),
        ((-0.0, None, None), "value=-0.0"),
        ((1e300, None, None), "value=1e+300"),
        ((9007199254740992.0, 9007199254740993, None), "value=9007199254740992.0,value_int=9007199254740993i"),
        ((1.0, None, "true"), "value=1.0,value_bool=true"),
        ((None, None, "true"), 'value_text="true"'),
        ((None, None, 'a"\\\n'), 'value_text="a\\"\\\\\n"'),
        ((1.1805916207174113e21, None, "1180591620717411303424"), 'value=1.1805916207174113e+21,value_text="1180591620717411303424"'),
    ],
)
def test_each_kind_of_value_has_its_field(value: tuple[float | None, int | None, str | None], written: str) -> None:
    prefix = series_key("my m", ("", "a,b c=d", "p", "t"))
    assert (
        line(prefix, Row(1, 1_700_000_000_000_001, *value))
        == f"my\\ m,metric=a\\,b\\ c\\=d,project=p,tenant=t {written} 1700000000000001000"
    )


def test_requests_are_bounded_in_lines_and_bytes() -> None:
    assert requests([]) == []
    assert requests(["x"] * 5, 2, 100) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert requests(["x" * 60, "y" * 60, "z" * 500, "a"], 10, 100) == [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)]


class Server:
    """Refuses requests that hold a bad line, with the wrong count, and is away for its first requests."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.kept: list[str] = []
        self.asked = 0

    def write(self, body: bytes) -> None:
        self.asked += 1
        if self.asked <= self.away:
            raise InfluxUnavailableError("away")
        lines = body.decode().split("\n")
        self.kept += [each for each in lines if not each.startswith("bad")]
        if any(each.startswith("bad") for each in lines):
            raise InfluxRefusedError("partial write: dropped=1")


def test_refused_lines_are_found_by_halves_and_the_others_are_kept() -> None:
    server = Server()
    lines = [("bad" if number in (3, 4, 90) else "good") + str(number) for number in range(100)]
    assert [position for position, _ in Delivery(server).send(lines).refused] == [3, 4, 90]
    assert set(server.kept) == {each for each in lines if each.startswith("good")}
    assert server.asked < 50


def test_what_is_not_taken_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot_platform.influx.delivery.FIRST_PAUSE_SECONDS", 0.001)
    server, said = Server(away=3), list[str]()
    delivery = Delivery(server, on_retry=said.append)
    assert delivery.send(["good"]).refused == []
    assert (server.kept, delivery.retries, said) == (["good"], 3, ["away"] * 3)
    with pytest.raises(InfluxUnavailableError):
        Delivery(Server(away=99), until=0.0).send(["good"])


def test_durations_of_retention_policies() -> None:
    assert duration_us("0s") == 0
    assert duration_us("168h0m0s") == 7 * 86_400_000_000


@pytest.mark.parametrize(
    "url",
    [
        "influx:8086/iot",
        "http://host:8086",
        "http://user@host/iot",
        "http://host/iot?precision=s",
        "http://a/x,http://b/x",
        "http://h:x/iot",
    ],
)
def test_a_wrong_url_is_refused_by_the_setting_s_name(url: str) -> None:
    with pytest.raises(InfluxConfigError, match="IOT_INFLUX_URL"):
        targets(Settings(influx_url=SecretStr(url)))
