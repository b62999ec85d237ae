#!/usr/bin/env bash
# @braintree/sanitize-url 7.1.2, through which Grafana passes every data link: it undoes percent-encoding.
#
# One would expect a function that removes `javascript:` to return other addresses as they came, as 7.0.1 does. Since 7.1 it decodes them, so
# that a value with & # or + in it is cut off again, whatever the link did to encode it. @grafana/data holds it at 7.0.1 up to 13.0 and allows
# ^7.0.1 in 13.2: whether a Grafana from 13.1 on is concerned depends on what it was built with; click on a link with an & in a name.
#
# Seen: 7.0.1: /d/x?var-a=Pump%20%231%20%26%20A%2BB; 7.1.2: /d/x?var-a=Pump #1 & A+B. Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

npm install --silent --no-audit --no-fund --ignore-scripts old@npm:@braintree/sanitize-url@7.0.1 new@npm:@braintree/sanitize-url@7.1.2
cat >test.cjs <<'JS'
const link = '/d/x?var-a=Pump%20%231%20%26%20A%2BB';
const seen = ['old', 'new'].map((name) => require(name).sanitizeUrl(link));
console.log(`7.0.1: ${seen[0]}\n7.1.2: ${seen[1]}`);
process.exit(seen[0] === link && seen[1] === '/d/x?var-a=Pump #1 & A+B' ? 0 : 1);
JS
timeout 60 node test.cjs
