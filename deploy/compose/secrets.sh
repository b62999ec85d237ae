#!/bin/sh
# Makes ./secrets: a file for each password that compose.yaml mounts, random where it can be; and an authority (ca.pem, which clients trust)
# with the certificates it has signed, for compose.tls.yaml and the cluster's Ingress. What is there stays: to have one made again, remove it. Two are yours,
# and what is given takes the place of what is there: MQTT_URL=mqtt://user:password@broker ALERT_WEBHOOK_URL=https://… sh secrets.sh
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# Containers read them as users of their own, so the files are open; the folder is not.
chmod 700 secrets
cd secrets
umask 022
put() { [ -s "$1" ] || printf '%s\n' "$2" >"$1"; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in postgres_password migrator_password writer_password reader_password grafana_admin_password grafana_database_password kafka_ingest_password kafka_platform_password; do
    put $name "$(random)"
done
put iot_database_url "postgresql://iot_writer:$(cat writer_password)@timescaledb:5432/iot"
put iot_database_admin_url "postgresql://iot_migrator:$(cat migrator_password)@timescaledb:5432/iot"
put iot_database_reader_url "postgresql://iot_reader:$(cat reader_password)@timescaledb:5432/iot"
given() { # FILE VALUE PLACEHOLDER HINT
    [ -z "$2" ] || printf '%s\n' "$2" >"$1"
    put "$1" "$3"
    [ "$(cat "$1")" != "$3" ] || echo "secrets/$1 is a placeholder; $4" >&2
}
given iot_mqtt_url "${MQTT_URL:-}" mqtt://mqtt.example:1883 "--profile all needs the broker's: MQTT_URL=mqtt://user:password@broker sh secrets.sh"
given alert_webhook_url "${ALERT_WEBHOOK_URL:-}" http://alerts.example/hook "alerts reach nobody until ALERT_WEBHOOK_URL=https://… sh secrets.sh"

# openssl 3. The address stands in the certificates.
address=${HOST_ADDRESS:-$([ ! -f ../.env ] || sed -n 's/^HOST_ADDRESS=//p' ../.env | tr -d "\r'\"")}
: "${address:?copy host.env to .env and set HOST_ADDRESS first, for the certificates}"
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
        [ $name = ingress ] || openssl x509 -noout -checkip "$address" -in ${name}_keystore.pem | grep -q 'does match' ||
            echo "secrets/${name}_keystore.pem is not for $address: remove it to have one made" >&2
        continue
    fi
    names="DNS:$name,DNS:localhost,IP:$address"
    [ $name != ingress ] || names="DNS:*.${CLUSTER_DOMAIN:-iot.lan}"
    sign -CA ca.pem -CAkey ca.key -extensions server -addext "subjectAltName=$names" -subj "/CN=$name" -keyout key.new -out certificate.new
    cat key.new certificate.new >${name}_keystore.pem.new && mv ${name}_keystore.pem.new ${name}_keystore.pem && rm key.new certificate.new
done
