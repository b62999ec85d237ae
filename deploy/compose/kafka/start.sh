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
# Prometheus' JMX exporter on port 9404, where somebody put its jar beside this file (docs/operations.md, "Metrics").
jar=$(dirname "$0")/jmx_prometheus_javaagent-1.0.1.jar
if [ -f "$jar" ]; then
    if echo "7d61f737fd661610ccc14aea79764faa1ea94a340cbc8f0029b3d2edea3d80c1  $jar" | sha256sum -c - >&2; then
        export KAFKA_OPTS="${KAFKA_OPTS:-} -javaagent:$jar=0.0.0.0:9404:/etc/iot-platform/kafka-jmx.yaml"
    else
        echo "Kafka starts without its metrics: $jar is not the one that was published" >&2
    fi
fi
exec "$home/bin/kafka-server-start.sh" "$config" "$@"
