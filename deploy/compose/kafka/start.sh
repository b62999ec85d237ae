# Formats Kafka's disk the first time, then becomes Kafka. Further arguments are the server's (--override name=value).
set -eu
home=${KAFKA_HOME:-/opt/kafka}
config=$(dirname "$0")/server.properties
if [ ! -f "$KAFKA_DATA/meta.properties" ]; then
    "$home/bin/kafka-storage.sh" format --cluster-id "$("$home/bin/kafka-storage.sh" random-uuid)" --config "$config"
    sync # without bootstrap.checkpoint on the disk Kafka would not start after a power cut
fi
# Not shut down cleanly: look through all segments. By its own checkpoint Kafka skips what it recovered once before, although after a second
# power cut the time indexes of these segments may hold zeros, and retention would delete them as older than anything.
[ -f "$KAFKA_DATA/.kafka_cleanshutdown" ] || rm -f "$KAFKA_DATA/recovery-point-offset-checkpoint"
exec "$home/bin/kafka-server-start.sh" "$config" "$@"
