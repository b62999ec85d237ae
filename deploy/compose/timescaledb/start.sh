# With TLS: copies the key and its certificate to where PostgreSQL's user owns them (it refuses a key of another's that all may read), then
# becomes the image's entrypoint.
set -eu
keystore=${KEYSTORE:-/var/lib/postgresql/keystore.pem}
rm -f "$keystore"
(umask 077 && cat "${SECRETS:-/run/secrets}/timescaledb_keystore.pem" >"$keystore")
chown "${OWNER:-postgres}" "$keystore"
exec "${ENTRYPOINT:-docker-entrypoint.sh}" "$@"
