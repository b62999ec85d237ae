#!/usr/bin/env bash
# polars 2.1.0: cast(pl.String, strict=False) of Binary raises where the bytes are not UTF-8.
#
# `strict=False` turns what cannot be cast into null: "x" as Int64 is null. One would expect null for bytes that are no text, too, so that
# messages can be read by the thousand and the bad ones looked at one by one. The whole column is an error instead, in a Series, in an
# expression and in the streaming engine, and the error names no row; bytes have to be checked before.
#
# Seen: "text as Int64: [1, None]; bytes as String: ComputeError three times".
# Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

python3 -m venv venv
venv/bin/pip install --quiet polars==2.1.0
cat >cast.py <<'PY'
import sys
from collections.abc import Callable

import polars as pl

PAYLOADS = pl.Series("payload", [b"21.5", b"\xff\xfe", b"on"], dtype=pl.Binary)
CAST = pl.col("payload").cast(pl.String, strict=False)


def outcome(cast: Callable[[], object]) -> str:
    try:
        return str(cast())
    except pl.exceptions.PolarsError as error:
        return type(error).__name__


frame = PAYLOADS.to_frame()
ways = (
    lambda: PAYLOADS.cast(pl.String, strict=False).to_list(),
    lambda: frame.select(CAST)["payload"].to_list(),
    lambda: frame.lazy().select(CAST).collect(engine="streaming")["payload"].to_list(),
)
seen = [outcome(way) for way in ways]
numbers = pl.Series(["1", "x"]).cast(pl.Int64, strict=False).to_list()
same = seen == ["ComputeError"] * 3
print(f"text as Int64: {numbers}; bytes as String: {'ComputeError three times' if same else seen}")
sys.exit(not (same and numbers == [1, None]))
PY
venv/bin/python cast.py
