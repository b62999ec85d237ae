#!/usr/bin/env bash
# crane 0.22.1: copying a multi-platform image again does not bring back a platform that the target registry lost.
#
# One would expect `crane copy` (and `push` of a layout) to make the target whole, as it does where blobs of an image are missing. It asks
# the target only for the index: if that is there, it says "existing manifest" and sends none of the platforms' manifests, with exit code 0.
# Registries do lose them: garbage collection of untagged manifests, or a DELETE by digest. The tag answers, its digest is right, and pulls
# of that platform fail. Only `crane validate --remote` says so. Copying the platform by its digest first brings it back.
#
# Seen: copy 0, validate 1 ("MANIFEST_UNKNOWN"); after a copy by digest validate 0.
# Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server"; rm -rf "$here"' EXIT
cd "$here"

GOBIN=$here GOPATH=$here/go GOFLAGS=-modcacherw go install github.com/google/go-containerregistry/cmd/crane@v0.22.1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
timeout 120 ./crane registry serve --address "127.0.0.1:$port" >registry.log 2>&1 &
server=$!
registry=127.0.0.1:$port
for _ in $(seq 100); do ./crane catalog "$registry" >/dev/null 2>&1 && break; sleep 0.1; done

for name in one two; do
    echo "$name" >"$name"
    tar -cf "$name.tar" "$name"
    ./crane append -f "$name.tar" -t "$registry/source/$name:1" >/dev/null 2>&1
done
./crane index append -m "$registry/source/one:1" -m "$registry/source/two:1" -t "$registry/source/both:1" >/dev/null 2>&1
./crane copy "$registry/source/both:1" "$registry/target/both:1" >/dev/null 2>&1
lost=$(./crane digest "$registry/source/one:1")
./crane delete "$registry/target/both@$lost"

status() { local code=0; "$@" >said 2>&1 || code=$?; echo "$code"; }
copied=$(status ./crane copy "$registry/source/both:1" "$registry/target/both:1")
grep -o 'existing manifest.*' said
torn=$(status ./crane validate --remote "$registry/target/both:1")
grep -o 'MANIFEST_UNKNOWN' said | head -1
./crane copy "$registry/source/both@$lost" "$registry/target/both@$lost" >/dev/null 2>&1
whole=$(status ./crane validate --remote "$registry/target/both:1")
echo "copy again: $copied; validate after it: $torn; validate after a copy by digest: $whole"
[[ "$copied $torn $whole" == "0 1 0" ]]
