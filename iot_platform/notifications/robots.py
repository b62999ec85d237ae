"""The group robots: what each takes, how it is signed, what its answer means. A refusal comes as 200 with a code of the vendor's."""

import base64
import hashlib
import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus

from iot_platform.notifications.message import Message


class RefusedError(Exception):
    """The robot does not take the message: wrong key, signature or keyword. Retrying does not help."""


class BusyError(Exception):
    """The robot takes no more for the moment, or does not answer. Retry later."""


@dataclass(frozen=True)
class Request:
    """What is posted, as JSON, and where. The address is a secret."""

    url: str
    body: dict[str, Any]


class Robot(ABC):
    """One kind of robot. Formats, limits and codes are those of the vendor's documentation of its group robots, and answers that people
    have published."""

    name: str
    most_bytes: int
    """Of the text, in UTF-8."""

    @abstractmethod
    def request(self, message: Message, url: str, secret: str | None, now: float) -> Request:
        """The message, signed where there is a secret. `now` is Unix time."""

    @abstractmethod
    def judge(self, answer: dict[str, Any]) -> None:
        """Raises RefusedError, BusyError unless the answer says that the message was taken."""


class WeCom(Robot):
    """企业微信群机器人. The key is in the address; it has no signature."""

    name = "wecom"
    most_bytes = 4096
    _BUSY: Final = frozenset({-1, 45009})

    def request(self, message: Message, url: str, secret: str | None, now: float) -> Request:
        """msgtype markdown."""
        head = f"**{message.title}**\n\n"
        content = head + message.text(self.most_bytes - len(head.encode()))
        return Request(url, {"msgtype": "markdown", "markdown": {"content": content}})

    def judge(self, answer: dict[str, Any]) -> None:
        """errcode 0."""
        _judge(answer, "errcode", "errmsg", self._BUSY)


class DingTalk(Robot):
    """钉钉自定义机器人. With a secret (加签): timestamp in ms and signature are parameters of the address."""

    name = "dingtalk"
    most_bytes = 18_000
    """The whole request may have 20,000 bytes."""
    _BUSY: Final = frozenset({-1, 90030, 130101, 410100, 660026})

    def request(self, message: Message, url: str, secret: str | None, now: float) -> Request:
        """msgtype markdown; one line break alone is none to it."""
        if secret is not None:
            stamp = str(int(now * 1000))
            url = f"{url}&timestamp={stamp}&sign={quote_plus(_dingtalk_sign(secret, stamp))}"
        text = f"### {message.title}\n\n" + message.text(self.most_bytes // 2).replace("\n", "  \n")
        return Request(url, {"msgtype": "markdown", "markdown": {"title": message.title, "text": text}, "at": {"isAtAll": False}})

    def judge(self, answer: dict[str, Any]) -> None:
        """errcode 0; 310000: keyword, signature or address of ours are not allowed. Its gate answers without a code: wait."""
        if "punish" in answer:
            raise BusyError(f"punish {answer['punish']}: wait {answer.get('wait')}")
        _judge(answer, "errcode", "errmsg", self._BUSY)


class Feishu(Robot):
    """飞书自定义机器人. With a secret (签名校验): timestamp in s and signature are in the body."""

    name = "feishu"
    most_bytes = 18_000
    """The whole request may have 20 KB."""
    _BUSY: Final = frozenset({11232, 11233})
    _BAD_OR_MANY: Final = 9499

    def request(self, message: Message, url: str, secret: str | None, now: float) -> Request:
        """msg_type interactive: a card, red, orange or green."""
        colour = "green" if not message.firing else "red" if message.critical else "orange"
        card = {
            "config": {"wide_screen_mode": True},
            "header": {"template": colour, "title": {"tag": "plain_text", "content": message.title}},
            "elements": [{"tag": "markdown", "content": message.text(self.most_bytes // 2)}],
        }
        signed = {} if secret is None else {"timestamp": str(int(now)), "sign": _feishu_sign(secret, str(int(now)))}
        return Request(url, {**signed, "msg_type": "interactive", "card": card})

    def judge(self, answer: dict[str, Any]) -> None:
        """code 0; 9499: a body that it does not understand, or, by its words only, too many; 19021: signature or time, 19022: address of
        ours, 19024: keyword."""
        many = answer.get("code") == self._BAD_OR_MANY and "too many" in str(answer.get("msg")).lower()
        _judge(answer, "code", "msg", self._BUSY | {self._BAD_OR_MANY} if many else self._BUSY)


ROBOTS: Final[dict[str, Robot]] = {robot.name: robot for robot in (WeCom(), DingTalk(), Feishu())}


def _judge(answer: dict[str, Any], code: str, text: str, busy: frozenset[int]) -> None:
    if answer.get(code) == 0:
        return
    words = f"{code} {answer.get(code)}: {str(answer.get(text))[:200]}"
    raise BusyError(words) if answer.get(code) in busy else RefusedError(words)


def _dingtalk_sign(secret: str, stamp: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256)).decode()


def _feishu_sign(secret: str, stamp: str) -> str:
    """Time and secret are the key, and nothing is signed: so it is documented."""
    return base64.b64encode(hmac.digest(f"{stamp}\n{secret}".encode(), b"", hashlib.sha256)).decode()
