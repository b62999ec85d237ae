#!/usr/bin/env bash
# Kafka 4.3.1, confluent-kafka 2.16.1 (librdkafka 2.16.0): a leader epoch does not tell an older copy of a broker's disk.
#
# One would expect that a consumer which hands over the leader epoch of its last record (assign(TopicPartition(…, leader_epoch=e))) is told
# when the log is another one: a log that lost its end is reported ("Partition log truncation detected"). When a single broker's disk is put
# back from a copy, though, the broker counts its epochs on from the copy's: the same epoch is given out a second time, for other records at
# the same offsets. The consumer reads on in the middle of them, and nothing is reported.
#
# Seen: after "copy, 30 records, copy put back, 40 other records", the position after the 30 records (offset 50, epoch 2) is accepted and
# gives a record of the other history. Exit code 1 if that changed.
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
from confluent_kafka import Consumer, Producer, TopicPartition
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

def fill(word, count):
    producer = Producer(client)
    for number in range(count):
        producer.produce("t", f"{word} {number}", partition=0)
    assert producer.flush(30) == 0

def read(offset, epoch=None):
    consumer = Consumer({**client, "group.id": "g", "auto.offset.reset": "error", "enable.auto.commit": False})
    place = TopicPartition("t", 0, offset) if epoch is None else TopicPartition("t", 0, offset, leader_epoch=epoch)
    consumer.assign([place])
    message = consumer.poll(20)
    assert message is not None, "no answer"
    found = (message.error().str() if message.error() else message.value().decode(), message.leader_epoch())
    consumer.close()
    return found

broker = start()
admin = AdminClient(client)
admin.create_topics([NewTopic("t", 1, 1)])["t"].result(60)
fill("old", 20)
stop(broker)
shutil.copytree("data", "copy")
broker = start()
fill("lost", 30)
last, epoch = read(49)
print(f"last record read: offset 49, {last!r}, leader epoch {epoch}")
stop(broker)
shutil.rmtree("data")
shutil.copytree("copy", "data")
broker = start()
fill("new", 40)
value, other = read(50, epoch)
print(f"after the copy was put back: offset 50 with leader epoch {epoch} gives {value!r}, leader epoch {other}")
stop(broker)
sys.exit(0 if value == "new 30" and other == epoch else 1)
PY
timeout 300 venv/bin/python test.py
