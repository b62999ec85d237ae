#!/usr/bin/env bash
# Grafana 11.6.0 (@grafana/data): a column of text with the unit `none` is shown as numbers.
#
# One would expect the unit `none` ("no unit") to leave text alone, as no unit at all does. The display processor turns every text that
# JavaScript takes for a number into one and formats that: identifiers of more than 17 digits change, zeros in front go, decimals are
# rounded away. `${__data.fields.x}` in a data link inserts what is shown, so the link opens another project; and without a format it leaves
# & + # as they are. The unit `string` leaves text alone. A panel's text for no data (`noValue`) also stands in every empty cell.
#
# Seen: none: 1968193691042586600, 12, 1013, 100000, 16; string and no unit: the text itself; an empty cell: "nothing here".
# Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

npm install --silent --no-audit --no-fund --ignore-scripts @grafana/data@11.6.0 react@18.3.1 react-dom@18.3.1
cat >test.cjs <<'JS'
globalThis.window ??= {};
globalThis.navigator ??= { language: 'en-US', languages: ['en-US'] };
const { createTheme, formattedValueToString, getDisplayProcessor } = require('@grafana/data');

const theme = createTheme();
const shown = (unit, value) =>
  formattedValueToString(getDisplayProcessor({ field: { type: 'string', config: { unit, noValue: 'nothing here' } }, theme })(value));
const texts = ['1968193691042586624', '0012', '1013.25', '1e5', '0x10', ''];
const expected = {
  none: ['1968193691042586600', '12', '1013', '100000', '16', 'nothing here'],
  string: [...texts.slice(0, -1), 'nothing here'],
  undefined: [...texts.slice(0, -1), 'nothing here'],
};
let same = true;
for (const unit of ['none', 'string', undefined]) {
  const seen = texts.map((text) => shown(unit, text));
  console.log(`unit ${unit}: ${JSON.stringify(texts)} are shown as ${JSON.stringify(seen)}`);
  same &&= JSON.stringify(seen) === JSON.stringify(expected[unit]);
}
process.exit(same ? 0 : 1);
JS
timeout 120 node test.cjs
