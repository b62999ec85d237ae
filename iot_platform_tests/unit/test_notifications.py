"""What the group robots are sent: the vendors' formats, limits and signatures, and what their answers mean."""

import base64
import hashlib
import hmac
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from iot_platform.notifications.bridge import Bridge, NotSetError
from iot_platform.notifications.message import MalformedError, Message, plain, read
from iot_platform.notifications.robots import ROBOTS, BusyError, RefusedError
from iot_platform.settings import Settings
from iot_platform_tests.support.oracles.robots import problems

NOW = 1_764_460_800.25
URLS = {
    "wecom": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k",
    "dingtalk": "https://oapi.dingtalk.com/robot/send?access_token=t",
    "feishu": "https://open.feishu.cn/open-apis/bot/v2/hook/h",
}


def notification(count: int = 1, status: str = "firing", **labels: str) -> dict[str, Any]:
    alert = {
        "status": status,
        "labels": {"alertname": "DrainStalled", "severity": "critical", "area": "telemetry", **labels},
        "annotations": {"summary": "7k messages wait", "summary_zh": "7k 条消息在等待", "runbook": "docs/runbooks/DrainStalled.md"},
        "startsAt": "2026-11-29T23:00:00.123Z",
        "endsAt": "2026-11-29T23:10:00Z",
    }
    return {
        "version": "4",
        "status": status,
        "alerts": [alert] * count,
        "groupLabels": {"area": "telemetry"},
        "commonLabels": alert["labels"],
        "truncatedAlerts": 0,
    }


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("secret", [None, "SEC123"])
def test_the_vendor_takes_it(name: str, count: int, secret: str | None) -> None:
    if name == "wecom":
        secret = None
    request = ROBOTS[name].request(read(notification(count)), URLS[name], secret, NOW)
    assert problems(name, request.url, request.body, secret, NOW) == []


def test_a_message_is_in_both_languages_with_its_runbook() -> None:
    message = read(notification())
    assert message.title == "[FIRING 1 告警] DrainStalled"
    (paragraph,) = message.paragraphs
    assert paragraph.splitlines() == [
        "**critical** 7k messages wait",
        "7k 条消息在等待",
        "docs/runbooks/DrainStalled.md",
        "2026-11-29 23:00:00 UTC",
    ]
    resolved = read(notification(status="resolved"))
    assert (resolved.title, resolved.firing, resolved.critical) == ("[RESOLVED 1 恢复] DrainStalled", False, False)
    assert resolved.paragraphs[0].endswith("2026-11-29 23:10:00 UTC")


def test_more_than_fits_is_counted() -> None:
    message = Message("t", True, False, tuple(f"告警 {number}" for number in range(100)))
    text = message.text(200)
    assert len(text.encode()) <= 200
    shown = text.count("告警")
    assert text.endswith(f"… +{100 - shown}")


def test_names_of_devices_steer_no_chat() -> None:
    assert (
        plain("<@all> [x](http://evil) *b* `c`\n@13800000000\x1b[31m") == "＜＠all＞ ［x］(http://evil) ＊b＊ ｀c｀ ＠13800000000\\x1b［31m"
    )


def test_signatures_are_those_of_the_documentation() -> None:
    message = read(notification())
    query = parse_qs(urlsplit(ROBOTS["dingtalk"].request(message, URLS["dingtalk"], "S", NOW).url).query)
    stamp = query["timestamp"][0]
    assert stamp == "1764460800250"
    assert base64.b64decode(query["sign"][0]) == hmac.new(b"S", f"{stamp}\nS".encode(), hashlib.sha256).digest()
    body = ROBOTS["feishu"].request(message, URLS["feishu"], "S", NOW).body
    assert body["timestamp"] == "1764460800"
    assert base64.b64decode(body["sign"]) == hmac.new(f"{body['timestamp']}\nS".encode(), digestmod=hashlib.sha256).digest()


@pytest.mark.parametrize(
    ("name", "answer", "error"),
    [
        ("wecom", {"errcode": 0, "errmsg": "ok"}, None),
        ("wecom", {"errcode": 93000, "errmsg": "invalid webhook url"}, RefusedError),
        ("wecom", {"errcode": 45009, "errmsg": "api freq out of limit"}, BusyError),
        ("dingtalk", {"errcode": 0, "errmsg": "ok"}, None),
        ("dingtalk", {"errcode": 310000, "errmsg": "sign not match"}, RefusedError),
        ("dingtalk", {"errcode": 130101, "errmsg": "send too fast"}, BusyError),
        ("feishu", {"code": 0, "msg": "success", "data": {}}, None),
        ("feishu", {"code": 19021, "msg": "sign match fail or timestamp is not within one hour from current time"}, RefusedError),
        ("dingtalk", {"errcode": 90030, "errmsg": "webhook over limit"}, BusyError),
        ("dingtalk", {"status": 1111, "wait": 5, "source": "x5", "punish": "deny"}, BusyError),
        ("feishu", {"code": 9499, "msg": "Bad Request", "data": {}}, RefusedError),
        ("feishu", {"StatusCode": 0, "code": 9499, "msg": "too many request"}, BusyError),
        ("feishu", {"code": 11232, "msg": "frequency limited"}, BusyError),
        ("feishu", {}, RefusedError),
    ],
)
def test_an_answer_of_200_may_be_a_refusal(name: str, answer: dict[str, Any], error: type[Exception] | None) -> None:
    if error is None:
        ROBOTS[name].judge(answer)
    else:
        with pytest.raises(error):
            ROBOTS[name].judge(answer)


@pytest.mark.parametrize("body", [None, [], {}, {"alerts": [{}]}, {"alerts": [], "commonLabels": None}])
def test_what_is_no_notification_is_refused(body: object) -> None:
    with pytest.raises(MalformedError):
        read(body)


def test_an_empty_file_is_no_address_and_an_empty_secret_no_signature(tmp_path: Path) -> None:
    url, secret = tmp_path / "url", tmp_path / "secret"
    for file in (url, secret):
        file.touch()
    bridge = Bridge(Settings(alert_feishu_url_file=url, alert_feishu_secret_file=secret), clock=lambda: NOW)
    with pytest.raises(NotSetError, match="url is empty"):
        bridge.deliver("feishu", notification())
    url.write_text("http://127.0.0.1:1/hook", "utf-8")
    with pytest.raises(BusyError):  # it was to be sent: nobody listens there
        bridge.deliver("feishu", notification())


def test_a_robot_that_dies_in_the_middle_of_its_answer_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_half() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

        thread = threading.Thread(target=answer_half)
        thread.start()
        url = tmp_path / "url"
        url.write_text(f"http://127.0.0.1:{server.getsockname()[1]}/hook", "utf-8")
        with pytest.raises(BusyError):
            Bridge(Settings(alert_wecom_url_file=url), clock=lambda: NOW).deliver("wecom", notification())
        thread.join(10)
