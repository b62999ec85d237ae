#!/usr/bin/env bash
# Kafka 4.3.1, confluent-kafka 2.16.1 (librdkafka 2.16.0): the error that a record gets for a wrong timestamp depends on its neighbours.
#
# One would expect INVALID_TIMESTAMP for each record whose CreateTime lies beyond message.timestamp.after.max.ms, and nothing for the others.
# The broker refuses the whole batch. With one such record in it, every record of the batch is reported as INVALID_TIMESTAMP. With two, the
# two are reported as INVALID_RECORD, which elsewhere means a record that can never be written, and the good ones as
# _INVALID_DIFFERENT_RECORD. A program that gives up on INVALID_RECORD gives up records that go through once they have another time.
#
# Seen: [INVALID_TIMESTAMP ×3] for one wrong of three; INVALID_RECORD, _INVALID_DIFFERENT_RECORD, INVALID_RECORD, _INVALID_DIFFERENT_RECORD for
# the first and third wrong of four. Exit code 1 if that changed.
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
import os, signal, socket, subprocess, sys, time
from confluent_kafka import Producer
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

broker = start()
admin = AdminClient(client)
admin.create_topics([NewTopic("t", 1, 1)])["t"].result(60)

def batch(wrong):
    """One batch of as many records; each one's error, in order."""
    producer = Producer({**client, "linger.ms": 500})
    said = [None] * len(wrong)
    for number, ahead in enumerate(wrong):
        producer.produce("t", b"x", partition=0, timestamp=round(time.time() * 1000) + (2 * 3600 * 1000 if ahead else 0),
                         on_delivery=lambda error, _, number=number: said.__setitem__(number, error.name() if error else "written"))
    assert producer.flush(60) == 0
    return said

one, two = batch([True, False, False]), batch([True, False, True, False])
print(f"one of three is two hours ahead: {one}")
print(f"two of four are two hours ahead: {two}")
broker.send_signal(signal.SIGTERM)
broker.wait(60)
other = "_INVALID_DIFFERENT_RECORD"
sys.exit(0 if one == ["INVALID_TIMESTAMP"] * 3 and two == ["INVALID_RECORD", other, "INVALID_RECORD", other] else 1)
PY
timeout 300 venv/bin/python test.py
