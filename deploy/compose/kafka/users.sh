# Kafka's two users with their passwords and rights; may be repeated. users.sh [BOOTSTRAP]
set -eu
home=${KAFKA_HOME:-/opt/kafka}
server=${1:-kafka:9094}
secrets=${SECRETS:-/run/secrets}
umask 077
folder=$(mktemp -d)
for user in ingest platform; do
    # By a file: arguments can be read by everybody on the machine. In a file without the [ ] of --add-config.
    printf 'SCRAM-SHA-512=password=%s\n' "$(cat "$secrets/kafka_${user}_password")" >"$folder/$user.properties"
    "$home/bin/kafka-configs.sh" --bootstrap-server "$server" --alter --entity-type users --entity-name "iot-$user" --add-config-file "$folder/$user.properties"
done
rm -r "$folder"
acls() { "$home/bin/kafka-acls.sh" --bootstrap-server "$server" --add "$@"; }
acls --allow-principal User:iot-ingest --operation Write --operation Describe --topic iot-messages --topic iot-dead-letter
acls --allow-principal User:iot-platform --operation Read --operation Describe --operation DescribeConfigs --operation Create \
    --operation AlterConfigs --topic iot-messages --topic iot-dead-letter
acls --allow-principal User:iot-platform --operation Read --operation Describe --group iot-drain
