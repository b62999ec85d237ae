"""Random batches for the decoder: a few shapes many times over, with odd values, odd spellings, odd topics and broken bytes."""

import json
from random import Random

from iot_platform_tests.support.feeds.decode_cases import NOW, Records, compact, flat, iso, realistic

BASE = "mtic/msg/client/realtime/"
TOPICS: list[bytes | None] = [
    *(
        f"{BASE}{levels}".encode()
        for levels in ["t/p", "t/p", "t/p", "t/q", "t/p/d1", "t/p/d1/x", "t/p/", "工厂/p", "t", "/p", "t/p/" + "d" * 300]
    ),
    b"",
    None,
    b"other/root/t/p",
    f"{BASE}t/p\0".encode(),
    BASE.encode() + b"t/\xff",
]
KEYS = [
    "a",
    "b",
    "c",
    "温度",
    "a.b",
    "",
    "ts",
    "timestamp",
    "time",
    "deviceId",
    "device_id",
    "clientId",
    "metric",
    "id",
    "value",
    "k" * 257,
]
USUAL_KEYS = [key for key in KEYS if 0 < len(key) < 257]
MILLIS = NOW // 1000
NUMBERS = [
    *(
        "0",
        "-0",
        "-0.0",
        "1",
        "-7",
        "25.3",
        "1.50",
        "1e3",
        "1E-7",
        "1e-400",
        "1e999",
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
    ),
    *("-9007199254740993", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551616", "1" + "0" * 25),
    *("9" * 308, "9" * 309, "9" * 400, "1e308", "1.7976931348623157e308", "1.7976931348623159e308", "0.1", "123456789.123456789", "5e-324"),
]
TIMES = [
    *(
        str(MILLIS),
        str(MILLIS // 1000),
        str(MILLIS * 1000 + 7),
        str(MILLIS * 1_000_000 + 999),
        f"{MILLIS / 1000}",
        f"{NOW // 10**6}.1234565",
    ),
    *(
        f"{MILLIS}.75",
        f'"{MILLIS}"',
        f'"{iso(MILLIS)}"',
        f'"{iso(MILLIS)[:-1]}"',
        f'"{iso(MILLIS)[:-1]}+08:00"',
        f'"{iso(MILLIS)[:-1]}-0230"',
    ),
    *(
        '"2026-11-23 09:59:58"',
        '"2026-11-23T09:59Z"',
        '"2026-11-23T09:59:60Z"',
        '"2026-02-30T09:59:00Z"',
        '"2026-11-23T24:00:00Z"',
        '"yesterday"',
    ),
    *(
        '"2026-11-23T09:59:58.123456789Z"',
        '"2026-11-23T09:59:58.Z"',
        '"2026-11-23T09:59:58.1+24:00"',
        '""',
        "0",
        "1",
        "-5",
        "true",
        "{}",
        "[]",
    ),
    *("null", "null", '{"s":1}', "1e10", "9" * 30, f'"0{MILLIS}"', '"0000-01-01T00:00:00Z"', '"9999-12-31T23:59:59-23:59"', '"+5"', '"１"'),
]
STRINGS = [
    '""',
    '"x"',
    '"正常 ✓"',
    '"a\\nb"',
    '"\\u00e9"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\ud800\\u0041"',
    '"x\\u0000"',
    '"\\\\u0000"',
    '"[{"',
    '"\\""',
    '"' + "s" * 300 + '"',
]


def leaf(random: Random, odd: float) -> str:
    if random.random() >= odd:
        return random.choice(["1", "25.3", "40", "-7", "true", "false", '"auto"', '"on"', "0.5"])
    return random.choice(
        [random.choice(NUMBERS), random.choice(STRINGS), "true", "null", random.choice(TIMES), str(random.uniform(-1e6, 1e6))]
    )


def value(random: Random, odd: float, depth: int) -> str:
    """JSON text of one value."""
    chance = random.random()
    if depth > 3 or chance < 0.8:
        return leaf(random, odd)
    if chance < 0.87:
        return "[" + ",".join(value(random, odd, depth + 1) for _ in range(random.randrange(4))) + "]"
    if chance < 0.94:
        return points(random, odd, depth + 1)
    return members(random, random.sample(KEYS[:5], random.randrange(4)), odd, depth + 1)


def member(random: Random, key: str, odd: float, depth: int) -> str:
    if key in ("ts", "timestamp", "time") and random.random() < 0.9:
        text = random.choice(TIMES[:12] if random.random() >= odd else TIMES)
    elif key in ("deviceId", "device_id", "clientId", "metric", "id") and random.random() < 0.9:
        text = random.choice(
            ['"d1"', '"d2"', '"m1"', '"m2"', "42"]
            if random.random() >= odd
            else ["null", "4.0", "true", '""', "{}", "1e2", f'"{"d" * 257}"']
        )
    else:
        text = value(random, odd, depth)
    spelled = json.dumps(key, ensure_ascii=random.random() < odd)
    return f"{spelled}{random.choice(['', ' ']) if random.random() < odd else ''}:{text}"


def members(random: Random, keys: list[str], odd: float, depth: int = 0) -> str:
    return "{" + ",".join(member(random, key, odd, depth) for key in keys) + "}"


def points(random: Random, odd: float, depth: int = 0) -> str:
    keys = [random.choice(["metric", "id"]), "value", *(key for key in ("ts", "deviceId", "time") if random.random() < 0.3)]
    items = []
    for number in range(random.choice([1, 2, 3, 5, 40]) if depth < 2 else 2):
        own = [key for key in keys if random.random() >= odd / 10]
        if keys[0] in own and random.random() < 0.7:
            rest = ",".join(member(random, key, odd, depth + 1) for key in own if key != keys[0])
            items.append(f'{{"{keys[0]}":"channel{number}"{"," if rest else ""}{rest}}}')
        else:
            items.append(members(random, own, odd, depth + 1))
    return "[" + ",".join(items) + "]"


def mutate(random: Random, payload: bytes) -> bytes:
    at = random.randrange(len(payload) + 1)
    piece = random.choice(
        [b"", b"\\", b'"', b"{", b"]", b",", b"0", b"\xff", b"\x00", b"e9", b" ", b"\\u0000", b'"a":1,', bytes([random.randrange(256)])]
    )
    return payload[:at] + piece + payload[at + random.randrange(3) :]


def batch(seed: int, size: int = 150) -> Records:
    """A reproducible batch; the same seed gives the same bytes."""
    random = Random(seed)
    odd = random.choice([0.0, 0.02, 0.1, 0.5])
    messages: list[tuple[bytes | None, bytes | None]] = []
    topics = TOPICS[: random.choice([1, 3, 7, 8, len(TOPICS)])]
    while len(messages) < size:
        keys = random.sample(KEYS if random.random() < odd else USUAL_KEYS, random.randrange(1, 6))
        kind = random.random()
        for _ in range(random.choice([1, 7, 20, 30])):
            if kind < 0.1:
                payload = compact(json.loads((flat if kind < 0.05 else realistic)(random)[1]))
            elif kind < 0.3:
                payload = points(random, odd).encode("utf-8", "surrogatepass")
            else:
                payload = members(random, keys, odd).encode("utf-8", "surrogatepass")
            if random.random() < odd / 5:
                payload = mutate(random, payload)
            if random.random() < odd / 20:
                payload = random.choice(
                    [b"", b"null", b"[]", b"42", b'"x"', b"[" * 40 + b"]" * 40, b'{"a":' * 33 + b"1" + b"}" * 33, payload + payload]
                )
            messages.append((random.choice(topics), payload if random.random() >= odd / 50 else None))
    random.shuffle(messages)
    return Records.of(messages)
