# With TLS: copies the key and its certificate to where PostgreSQL's user owns them (it refuses a key of another's that all may read). With
# backups: has the server archive its WAL. Then becomes the image's entrypoint.
set -eu
here=$(dirname "$0")
source=${SECRETS:-/run/secrets}/timescaledb_keystore.pem
if [ -e "$source" ]; then
    keystore=${KEYSTORE:-/var/lib/postgresql/keystore.pem}
    rm -f "$keystore"
    (umask 077 && cat "$source" >"$keystore")
    chown "${OWNER:-postgres}" "$keystore"
fi
if [ -e "${SECRETS:-/run/secrets}/backup_passphrase" ]; then
    . "$here/pgbackrest.sh"
    # The repository's folder is the host's: PostgreSQL's user's, when it is new.
    repository=${REPOSITORY:-/backup}
    if [ -z "$(ls -A "$repository")" ]; then chown "${OWNER:-postgres}" "$repository" && chmod 700 "$repository"; fi
    set -- "$@" -c archive_mode=on -c archive_timeout=60s \
        -c "archive_command=pgbackrest --config=$home/pgbackrest.conf --stanza=iot archive-push %p"
fi
exec "${ENTRYPOINT:-docker-entrypoint.sh}" "$@"
