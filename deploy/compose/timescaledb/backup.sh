# The service `backup`, as PostgreSQL's user beside its data: makes the repository, then a backup whenever none has ended since the last 04:13
# UTC, a full one each week; tells the platform what the repository holds (table database_backup). What fails is repeated after ten minutes.
set -eu
here=$(dirname "$0")
. "$here/pgbackrest.sh"
run() { pgbackrest --config="$home/pgbackrest.conf" --stanza=iot "$@"; }
ask() {
    run info --output=json --log-level-console=off --log-level-stderr=error >"$home/info.json" &&
        psql -X -A -t -q -v ON_ERROR_STOP=1 -v file="$home/info.json" -v full_days="${BACKUP_FULL_DAYS:-7}" -d "${BACKUP_DATABASE:-iot}" -f "$here/backup.sql"
}
trap 'exit 0' TERM INT
while :; do
    if run stanza-create && kind=$(ask); then
        [ -z "$kind" ] || { run check && run backup --type="$kind" && ask >/dev/null; } || echo "no backup was made" >&2
    fi
    [ -z "${BACKUP_ONCE:-}" ] || exit 0
    sleep "${BACKUP_POLL_SECONDS:-600}" &
    wait $!
done
