#!/bin/sh
# Makes .venv with everything that requirements.txt pins, and this checkout itself. Quick when nothing changed.
# Downloads go through pip as the user has configured it, and stay in pip's cache.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 1; }
usable() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Up to date: same requirements, same project file, same place (a moved .venv does not work).
stamp=.venv/bootstrapped
wanted="$(cat requirements.txt pyproject.toml | cksum) $(pwd)"
if [ -x .venv/bin/iot ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

install_package() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 ||
        fail "$2. Install it (Debian, as root: apt-get install $1) and repeat this command"
    echo "bootstrap: installing $1 ($2)"
    log=$(mktemp)
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"; } >"$log" 2>&1 </dev/null ||
        { tail -n 5 "$log" >&2; fail "apt-get could not install $1; is there a network, and a mirror? The whole output is in $log"; }
    rm -f "$log"
}

python=
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ] && ! command -v python3 >/dev/null 2>&1; then
    install_package python3 "Python >= 3.11 is not installed"
    ! usable python3 || python=python3
fi
[ -n "$python" ] || fail "Python >= 3.11 is needed, found $(python3 --version 2>&1 || echo none). Install it, or name it: PYTHON=/path/to/python3.12 make up"

if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! usable .venv/bin/python; then
    "$python" -c 'import ensurepip' 2>/dev/null || install_package python3-venv "Python's venv module is not installed"
    echo "bootstrap: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || fail "$python -m venv .venv failed"
fi

echo "bootstrap: installing the Python packages of requirements.txt (the first time: a minute or two, 150 MB)"
rm -f "$stamp"
progress=off
[ ! -t 1 ] || progress=on
.venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar "$progress" -r requirements.txt ||
    fail "pip could not install requirements.txt (see above): is there a network, and does pip's configuration reach an index?"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . || fail "pip could not install this checkout"
printf '%s' "$wanted" >"$stamp"
