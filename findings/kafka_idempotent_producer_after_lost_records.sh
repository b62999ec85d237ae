#!/usr/bin/env bash
# Kafka 4.3.1, confluent-kafka 2.16.1 (librdkafka 2.16.0): when a broker has lost records, a producer that is still running never writes again.
#
# One would expect that an idempotent producer which outlived its broker's loss (a power cut took records that were confirmed already) goes on
# with its next record, or sends what is missing. The broker, though, has lost the producer's last sequence numbers with the records, refuses
# the next batch as out of order, and librdkafka waits about a minute for an answer that cannot come; then the error is fatal: every later
# record fails, and only a new producer can write.
#
# Seen: OUT_OF_ORDER_SEQUENCE_NUMBER, fatal, raised by flush(). Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'kill "$(cat "$here/pid" 2>/dev/null)" 2>/dev/null || true; sleep 1; rm -rf "$here"' EXIT
cd "$here"

python3 -m venv venv
venv/bin/pip install --quiet confluent-kafka==2.16.1
cat >pom.xml <<'POM'
<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.3.1</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>4.3.1</version></dependency>
</dependencies></project>
POM
mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs
cat >test.py <<'PY'
import os, shutil, signal, socket, subprocess, sys, time
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

port, controller = free_port(), free_port()
open("server.properties", "w").write(f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={os.getcwd()}/data
offsets.topic.replication.factor=1
""")
java = ["java", "-Xmx256m", "-cp", "libs/*"]
subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", "server.properties"],
               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
client = {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0}

def start():
    broker = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    open("pid", "w").write(str(broker.pid))
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            topics = AdminClient(client).list_topics(timeout=2).topics
            if all(part.leader >= 0 for topic in topics.values() for part in topic.partitions.values()):
                return broker
        except Exception:
            pass
        time.sleep(0.2)
    sys.exit("Kafka did not start")

def stop(broker):
    broker.send_signal(signal.SIGTERM)
    broker.wait(60)

broker = start()
admin = AdminClient(client)
admin.create_topics([NewTopic("t", 1, 1)])["t"].result(60)
producer = Producer({**client, "enable.idempotence": True, "acks": "all"})

def fill(count):
    for number in range(count):
        producer.produce("t", str(number), partition=0)
    return producer.flush(120)

assert fill(20) == 0
stop(broker)
shutil.copytree("data", "copy")
broker = start()
assert fill(30) == 0
stop(broker)
shutil.rmtree("data")
shutil.copytree("copy", "data")
broker = start()
try:
    left = fill(1)
    code, fatal = f"nothing, {left} left", False
except KafkaException as error:
    code, fatal = error.args[0].name(), error.args[0].fatal()
print(f"after 30 confirmed records were lost, the next one gives: {code}, fatal {fatal}")
stop(broker)
sys.exit(0 if (code, fatal) == ("OUT_OF_ORDER_SEQUENCE_NUMBER", True) else 1)
PY
timeout 300 venv/bin/python test.py
