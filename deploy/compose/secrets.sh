#!/bin/sh
# Makes ./secrets: a file for each password that compose.yaml mounts, random where it can be. What is there stays. Two are yours to fill in:
#   MQTT_URL=mqtt://user:password@broker ALERT_WEBHOOK_URL=https://… sh secrets.sh
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# Containers read them as users of their own, so the files are open; the folder is not.
chmod 700 secrets
cd secrets
umask 022
put() { [ -s "$1" ] || printf '%s\n' "$2" >"$1"; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in postgres_password migrator_password writer_password reader_password grafana_admin_password kafka_ingest_password kafka_platform_password; do
    put $name "$(random)"
done
put iot_database_url "postgresql://iot_writer:$(cat writer_password)@timescaledb:5432/iot"
put iot_database_admin_url "postgresql://iot_migrator:$(cat migrator_password)@timescaledb:5432/iot"
put iot_database_reader_url "postgresql://iot_reader:$(cat reader_password)@timescaledb:5432/iot"
put iot_mqtt_url "${MQTT_URL:-mqtt://mqtt.example:1883}"
put alert_webhook_url "${ALERT_WEBHOOK_URL:-http://alerts.example/hook}"
