#!/bin/sh
# The platform's roles and its database, and Grafana's, when the data folder is made (docs/operations.md, "PostgreSQL with TimescaleDB").
# The image sources files that are not executable: no `set`, no `exit`.
secrets=${SECRETS:-/run/secrets}
superuser=${SUPERUSER_SQL:-/etc/iot-platform/superuser}
psql -v ON_ERROR_STOP=1 --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    -v migrator="$(cat "$secrets/migrator_password")" -v writer="$(cat "$secrets/writer_password")" -v reader="$(cat "$secrets/reader_password")" \
    -v monitor="$(cat "$secrets/monitor_password")" -v console="$(cat "$secrets/console_password")" \
    -v grafana="$(cat "$secrets/grafana_database_password")" -v harden="$superuser/harden_database.sql" <<'SQL'
CREATE ROLE iot_migrator LOGIN CREATEROLE PASSWORD :'migrator';
CREATE ROLE iot_writer LOGIN PASSWORD :'writer';
CREATE ROLE iot_reader LOGIN PASSWORD :'reader';
GRANT iot_writer, iot_reader TO iot_migrator WITH ADMIN OPTION;
CREATE ROLE iot_console LOGIN PASSWORD :'console';
GRANT pg_use_reserved_connections TO iot_migrator, iot_writer, iot_reader, iot_console;
CREATE ROLE iot_monitor LOGIN CONNECTION LIMIT 3 PASSWORD :'monitor';
GRANT pg_monitor TO iot_monitor;
GRANT CONNECT ON DATABASE postgres TO iot_monitor;
CREATE ROLE grafana LOGIN PASSWORD :'grafana';
CREATE DATABASE iot OWNER iot_migrator;
CREATE DATABASE grafana OWNER grafana;
REVOKE CONNECT ON DATABASE postgres, template1, grafana FROM PUBLIC;
\connect iot
CREATE EXTENSION IF NOT EXISTS timescaledb;
ALTER SCHEMA public OWNER TO iot_migrator;
\include :harden
SQL
