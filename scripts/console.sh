#!/bin/sh
# Builds the front end (console/) into iot_platform/api/static. Quick when nothing changed; installs nothing outside of console/node_modules.
# --if-possible: without Node.js says so and goes on.
set -eu
cd "$(dirname "$0")/.."

if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null ||
    ! command -v npm >/dev/null 2>&1; then
    what="the console's pages need Node.js >= 20.19 and npm to be built (Debian 13, as root: apt-get install nodejs npm)"
    [ "${1:-}" = --if-possible ] || { echo "error: $what" >&2; exit 1; }
    [ -f iot_platform/api/static/index.html ] || echo "note: $what; without them the read API works, and its pages say this" >&2
    exit 0
fi

packages="$(cat console/package.json console/package-lock.json | cksum) $(node --version)"
if [ "$(cat console/node_modules/.installed 2>/dev/null)" != "$packages" ]; then
    echo "console: installing the packages of console/package-lock.json"
    (cd console && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    printf '%s' "$packages" >console/node_modules/.installed
fi

# The API's types, from its description.
described="$(cksum <console/openapi.json) $packages"
if [ ! -f console/src/api/schema.d.ts ] || [ "$(cat console/node_modules/.described 2>/dev/null)" != "$described" ]; then
    (cd console && npm run --silent api-types >/dev/null)
    printf '%s' "$described" >console/node_modules/.described
fi

sources="$(find console/src console/public console/index.html console/vite.config.ts -type f | LC_ALL=C sort | xargs cat | cksum) $packages"
if [ -f iot_platform/api/static/index.html ] && [ "$(cat console/node_modules/.built 2>/dev/null)" = "$sources" ]; then
    exit 0
fi
(cd console && npm run --silent build -- --logLevel warn)
printf '%s' "$sources" >console/node_modules/.built
