# Sourced by start.sh and backup.sh: writes pgbackrest.conf, the one of drills, which may only read, and PostgreSQL's password file, for
# PostgreSQL's user alone. As `iot backup config` would print them.
secrets=${SECRETS:-/run/secrets}
home=${BACKUP_HOME:-/var/lib/postgresql} # not PGBACKREST_…: pgBackRest takes those for options
if [ -z "${BACKUP_FOLDER:-}${BACKUP_S3_BUCKET:-}" ]; then
    echo "backups: set BACKUP_FOLDER (a folder of this host, on another disk) or BACKUP_S3_BUCKET in .env" >&2
    exit 1
fi
only() { # FILE TEXT: whole or not at all
    rm -f "$1"
    (umask 077 && printf '%s\n' "$2" >"$1.new")
    if [ "$(id -u)" = 0 ]; then chown "${OWNER:-postgres}" "$1.new"; fi
    mv "$1.new" "$1"
}
place() { # FOLDER KEY_FILE
    if [ -z "${BACKUP_S3_BUCKET:-}" ]; then
        echo "repo1-path=$1"
        return
    fi
    key=$(cat "$secrets/$2")
    case $key in
    *placeholder*)
        echo "backups: secrets/$2 is a placeholder: BACKUP_S3_KEY=key:secret BACKUP_S3_READER_KEY=key:secret sh secrets.sh" >&2
        exit 1
        ;;
    esac
    style=path
    case ${BACKUP_S3_ENDPOINT:?backups: set BACKUP_S3_ENDPOINT in .env} in *.amazonaws.com) style=host ;; esac
    printf '%s\n' repo1-type=s3 "repo1-path=/${BACKUP_S3_PREFIX:-iot}" "repo1-s3-bucket=$BACKUP_S3_BUCKET" \
        "repo1-s3-endpoint=$BACKUP_S3_ENDPOINT" "repo1-s3-region=${BACKUP_S3_REGION:-us-east-1}" "repo1-s3-key=${key%%:*}" \
        "repo1-s3-key-secret=${key#*:}" "repo1-s3-uri-style=$style" \
        "repo1-storage-ca-file=${BACKUP_S3_CA_FILE:-/opt/pgbackrest/ca-certificates.crt}"
}
configuration() { # FOLDER KEY_FILE
    place=$(place "$1" "$2") || exit 1
    printf '%s\n' '[global]' "$place" repo1-cipher-type=aes-256-cbc "repo1-cipher-pass=$(cat "$secrets/backup_passphrase")" \
        repo1-bundle=y repo1-retention-full-type=time "repo1-retention-full=${BACKUP_KEEP_DAYS:-14}" compress-type=zst start-fast=y \
        "lock-path=$home/pgbackrest/lock" log-level-file=off log-level-console=warn '' '[iot]' \
        "pg1-path=${PGDATA:-/var/lib/postgresql/data}" pg1-port=5432 pg1-user=postgres pg1-socket-path=/var/run/postgresql
}
text=$(configuration "${REPOSITORY:-/backup}" backup_s3_key) || exit 1
only "$home/pgbackrest.conf" "$text"
text=$(configuration "${REPOSITORY:-/backup}-read-only" backup_s3_reader_key) || exit 1
only "$home/pgbackrest-drill.conf" "$text"
only "$home/pgpass" "*:*:*:postgres:$(cat "$secrets/postgres_password")"
