#!/usr/bin/env bash
# polars 2.1.0, polars.io.plugins.register_io_source: `head(n)` of a source is not cut to n rows by polars.
#
# One would expect n_rows to be a hint, and what a source yields beyond it to be cut. The slice is taken out of the plan, and whatever the
# source yields is the answer: `head(2)` has as many rows as the generator gave. A source has to count rows itself, over all its batches.
#
# Seen: "head(2) of three batches of 5: 15 rows from a source that ignores n_rows, 2 from a DataFrame's scan".
# Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

python3 -m venv venv
venv/bin/pip install --quiet polars==2.1.0
cat >head.py <<'PY'
import sys

import polars as pl
from polars.io.plugins import register_io_source

asked = []


def batches(with_columns, predicate, n_rows, batch_size):
    asked.append(n_rows)
    for number in range(3):
        frame = pl.DataFrame({"a": [number * 5 + row for row in range(5)]})
        if with_columns is not None:
            frame = frame.select(with_columns)
        if predicate is not None:
            frame = frame.filter(predicate)
        yield frame


rows = register_io_source(batches, schema={"a": pl.Int64}).head(2).collect().height
plain = pl.LazyFrame({"a": list(range(15))}).head(2).collect().height
print(f"head(2) of three batches of 5: {rows} rows from a source that ignores n_rows, {plain} from a DataFrame's scan; n_rows was {asked}")
sys.exit((rows, plain) != (15, 2))
PY
timeout 120 venv/bin/python head.py
