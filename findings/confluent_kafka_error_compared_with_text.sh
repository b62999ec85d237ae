#!/usr/bin/env bash
# confluent-kafka 2.16.1 (librdkafka 2.16.0): comparing a KafkaError with something that is no error or number does not raise where it stands.
#
# One would expect `error == "text"` to be False, or to raise TypeError at once. The comparison returns, with an exception pending, and the
# next call into C fails in its place: here len([]), which is blamed with "SystemError: … returned a result with an exception set". So a
# set, a dict or a list that holds such errors beside other values fails somewhere else, and `error != None` counts as such a comparison.
# Compare `error.code()`, and with None by `is`.
#
# Seen: no exception at `==`; SystemError naming len; its cause is TypeError "'str' object cannot be interpreted as an integer"; comparing
# with a number or another KafkaError works. Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

python3 -m venv venv
venv/bin/pip install --quiet confluent-kafka==2.16.1
venv/bin/python - <<'PY'
import sys
from confluent_kafka import KafkaError, libversion, version

error = KafkaError(KafkaError._TIMED_OUT)
passed = False

def compare():
    global passed
    found = error == "text"
    passed = True
    len([])
    return found

try:
    seen = f"{compare()}"
except SystemError as raised:
    seen = f"SystemError: {raised}, from {type(raised.__cause__).__name__}: {raised.__cause__}"
works = error == KafkaError._TIMED_OUT and error == KafkaError(KafkaError._TIMED_OUT)
print(f"confluent-kafka {version()}, librdkafka {libversion()[0]}: passed the comparison: {passed}; then {seen}; with a number and an error: {works}")
expected = ("len" in seen, "TypeError: 'str' object cannot be interpreted as an integer" in seen, passed, works)
sys.exit(0 if all(expected) else 1)
PY
