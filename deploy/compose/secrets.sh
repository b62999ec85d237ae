#!/bin/sh
# Makes ./secrets: a file for each password that compose.yaml mounts, random where it can be; and an authority (ca.pem, which clients trust)
# with the certificates it has signed, for compose.tls.yaml and the cluster's Ingress. What is there stays: to have one made again, remove it. Two are yours,
# and what is given takes the place of what is there: MQTT_URL=mqtt://user:password@broker ALERT_WEBHOOK_URL=https://… sh secrets.sh
set -eu
CDPATH='' cd "$(dirname "$0")"
mkdir -p secrets
# Containers read them as users of their own, so the files are open; the folder is not.
chmod 700 secrets
cd secrets
umask 022
put() { # at once and whole: half a password would stay
    [ ! -s "$1" ] || return 0
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}
random() { # 48 hexadecimal digits
    made=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    [ ${#made} -eq 48 ] || { echo "no random numbers here: od or /dev/urandom is missing" >&2 && exit 1; }
    echo "$made"
}
for name in backup_passphrase postgres_password migrator_password writer_password reader_password monitor_password console_password console_key grafana_admin_password grafana_database_password kafka_ingest_password kafka_platform_password; do
    [ -s $name ] || { password=$(random) && put $name "$password"; } || exit 1
done
url() { # FILE ROLE PASSWORD_FILE
    put "$1" "postgresql://$2:$(cat "$3")@timescaledb:5432/iot"
    grep -qF ":$(cat "$3")@" "$1" || echo "secrets/$1 has another password than $3: remove it to have it made of that" >&2
}
url iot_database_url iot_writer writer_password
url iot_database_admin_url iot_migrator migrator_password
url iot_database_reader_url iot_reader reader_password
url iot_console_database_url iot_console console_password
given() { # FILE GIVEN PLACEHOLDER
    [ -z "$2" ] || { printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"; }
    put "$1" "$3"
}
yours() { # FILE GIVEN PLACEHOLDER HINT
    given "$1" "$2" "$3"
    [ "$(cat "$1")" != "$3" ] || echo "secrets/$1 is a placeholder; $4" >&2
}
yours iot_mqtt_url "${MQTT_URL:-}" mqtt://mqtt.example:1883 "--profile all needs the broker's: MQTT_URL=mqtt://user:password@broker sh secrets.sh"
yours alert_webhook_url "${ALERT_WEBHOOK_URL:-}" http://alerts.example/hook "alerts reach nobody until ALERT_WEBHOOK_URL=https://… sh secrets.sh"
# Of S3, where compose.backup.yaml keeps backups there: key:secret of a key that may do everything, and of one that may only read.
given backup_s3_key "${BACKUP_S3_KEY:-}" key:placeholder-of-the-writer
given backup_s3_reader_key "${BACKUP_S3_READER_KEY:-}" key:placeholder-of-the-reader

# Robots (--profile robots): WECOM_URL, DINGTALK_URL, DINGTALK_SECRET, FEISHU_URL, FEISHU_SECRET. An empty secret: the robot has no signature.
mkdir -p robots
robot() { # FILE GIVEN
    [ -z "$2" ] || printf '%s\n' "$2" >"robots/$1.new"
    [ -z "$2" ] || mv "robots/$1.new" "robots/$1"
    [ -e "robots/$1" ] || : >"robots/$1"
}
robot wecom_url "${WECOM_URL:-}"
robot dingtalk_url "${DINGTALK_URL:-}"
robot dingtalk_secret "${DINGTALK_SECRET:-}"
robot feishu_url "${FEISHU_URL:-}"
robot feishu_secret "${FEISHU_SECRET:-}"

# openssl 3. The address stands in the certificates.
address=${HOST_ADDRESS:-$([ ! -f ../.env ] || sed -n 's/^HOST_ADDRESS=//p' ../.env | sed 's/[[:space:]]#.*//; $!d' | tr -d "[:space:]'\"")}
: "${address:?copy host.env to .env and set HOST_ADDRESS first, for the certificates}"
case $address in *[!0-9.]*)
    echo "HOST_ADDRESS is $address: an IPv4 address is wanted, to which compose.yaml binds ports" >&2
    exit 1
    ;;
esac
sign() {
    openssl req -x509 -config ../openssl.conf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 "$@" 2>openssl.log || {
        cat openssl.log >&2
        rm -f openssl.log ./*.new
        exit 1
    }
    rm openssl.log
}
if [ ! -s ca.pem ]; then
    (umask 077 && sign -extensions authority -subj "/CN=IoT platform $address" -keyout ca.key -out ca.pem.new)
    chmod 644 ca.pem.new && mv ca.pem.new ca.pem
fi
for name in kafka timescaledb ingress; do
    if [ -s ${name}_keystore.pem ]; then
        openssl verify -CAfile ca.pem -attime $(($(date +%s) + 30 * 86400)) ${name}_keystore.pem >openssl.log 2>&1 ||
            echo "secrets/${name}_keystore.pem is not signed by ca.pem, or ends within 30 days: remove it (or ca.pem and all three) to have one made" >&2
        rm openssl.log
        [ $name = ingress ] || openssl x509 -noout -checkip "$address" -in ${name}_keystore.pem | grep -q 'does match' ||
            echo "secrets/${name}_keystore.pem is not for $address: remove it to have one made" >&2
        continue
    fi
    names="DNS:$name,DNS:localhost,IP:$address"
    [ $name != ingress ] || names="DNS:*.${CLUSTER_DOMAIN:-iot.lan}"
    sign -CA ca.pem -CAkey ca.key -extensions server -addext "subjectAltName=$names" -subj "/CN=$name" -keyout key.new -out certificate.new
    cat key.new certificate.new >${name}_keystore.pem.new && mv ${name}_keystore.pem.new ${name}_keystore.pem && rm key.new certificate.new
done
