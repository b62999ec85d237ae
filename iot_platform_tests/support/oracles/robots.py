"""What the vendors of group robots document of a message: fields, sizes and signatures, written down apart from our code."""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit


def problems(name: str, url: str, body: dict[str, Any], secret: str | None, now: float) -> list[str]:
    """Why the robot would refuse this; empty if it would not."""
    return {"wecom": _wecom, "dingtalk": _dingtalk, "feishu": _feishu}[name](url, body, secret, now)


def _wecom(url: str, body: dict[str, Any], secret: str | None, now: float) -> list[str]:
    found = []
    if not parse_qs(urlsplit(url).query).get("key"):
        found.append("93000 no key")
    if set(body) != {"msgtype", "markdown"} or body["msgtype"] != "markdown" or set(body["markdown"]) != {"content"}:
        found.append("40008 invalid message type")
    elif not 0 < len(body["markdown"]["content"].encode()) <= 4096:
        found.append("40058 content exceeds 4096 bytes")
    return found


def _dingtalk(url: str, body: dict[str, Any], secret: str | None, now: float) -> list[str]:
    found = []
    query = parse_qs(urlsplit(url).query)
    if not query.get("access_token"):
        found.append("300001 token is not exist")
    if secret is not None:
        stamp = query.get("timestamp", [""])[0]
        wanted = base64.b64encode(hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()).decode()
        if not stamp.isdecimal() or abs(int(stamp) / 1000 - now) > 3600:
            found.append("310000 invalid timestamp")
        if query.get("sign") != [wanted]:
            found.append("310000 sign not match")
    if body.get("msgtype") != "markdown" or set(body) - {"msgtype", "markdown", "at"}:
        found.append("40035 msgtype")
    elif set(body["markdown"]) != {"title", "text"} or not all(isinstance(text, str) and text for text in body["markdown"].values()):
        found.append("40035 markdown needs title and text")
    if len(json.dumps(body, ensure_ascii=False).encode()) > 20_000:
        found.append("460101 message too long")
    return found


def _feishu(url: str, body: dict[str, Any], secret: str | None, now: float) -> list[str]:
    found = []
    if not urlsplit(url).path.startswith("/open-apis/bot/v2/hook/"):
        found.append("19001 incoming webhook access token invalid")
    if secret is not None:
        stamp = body.get("timestamp", "")
        wanted = base64.b64encode(hmac.new(f"{stamp}\n{secret}".encode(), digestmod=hashlib.sha256).digest()).decode()
        if not stamp.isdecimal() or abs(int(stamp) - now) > 3600 or body.get("sign") != wanted:
            found.append("19021 sign match fail or timestamp is not within one hour from current time")
    if body.get("msg_type") != "interactive" or set(body) - {"timestamp", "sign", "msg_type", "card"}:
        found.append("19002 params error, msg_type need")
    else:
        card = body["card"]
        if card["header"]["title"]["tag"] != "plain_text" or card["header"]["template"] not in {"red", "orange", "green"}:
            found.append("11246 card header")
        if not card["elements"] or any(element["tag"] != "markdown" or not element["content"] for element in card["elements"]):
            found.append("11246 card elements")
    if len(json.dumps(body, ensure_ascii=False).encode()) > 20 * 1024:
        found.append("11246 request too large")
    return found
