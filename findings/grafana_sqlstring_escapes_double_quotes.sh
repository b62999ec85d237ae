#!/usr/bin/env bash
# Grafana's variable format `sqlstring` (@grafana/scenes 6.57.2, as in Grafana 11.6): a double quote becomes backslash and double quote.
#
# One would expect a literal of standard SQL: single quotes doubled, everything else as it is; the documentation's example shows just that.
# It writes a backslash before each double quote as well. PostgreSQL (standard_conforming_strings, on by default) takes the backslash for a
# character, so `WHERE name = ${name:sqlstring}` never finds a name with a double quote in it, and says nothing.
# `replace(${name:sqlstring}, '\"', '"')` undoes it, whatever the name: each double quote has just that backslash before it.
#
# Seen: a"b'c\ becomes 'a\"b''c\'. Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps \
  @grafana/scenes@6.57.2 @grafana/data@11.6.0 @grafana/schema@11.6.0 react@18.3.1 react-dom@18.3.1 esbuild@0.25.9
echo 'export const t = (_, text) => text;' >i18n.js
formats=./node_modules/@grafana/scenes/dist/esm/packages/scenes/src/variables/interpolation/formatRegistry.js
echo "export { formatRegistry } from '$formats';" >main.js
node_modules/.bin/esbuild main.js --bundle --platform=node --format=esm --main-fields=module,main --outfile=bundle.mjs --log-level=warning \
  --alias:@grafana/i18n="$PWD/i18n.js"
cat >test.mjs <<'JS'
globalThis.window ??= {};
globalThis.navigator ??= { language: 'en-US', languages: ['en-US'] };
const { formatRegistry } = await import('./bundle.mjs');
const name = String.raw`a"b'c\ `.trim();
const seen = formatRegistry.get('sqlstring').formatter(name, [], { state: { name: 'name' } });
console.log(`sqlstring of ${name} is ${seen}`);
process.exit(seen === String.raw`'a\"b''c\'` ? 0 : 1);
JS
timeout 120 node test.mjs
