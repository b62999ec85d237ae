"""Prometheus' JMX exporter, the Java agent by which the local Kafka shows its metrics: fetched as Kafka is, its digest checked."""

import hashlib
import re
from pathlib import Path
from typing import Final

from iot_platform.files import DEPLOY
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, run_logged, which
from iot_platform.local.ports import LOOPBACK

RULES: Final = DEPLOY / "prometheus" / "kafka-jmx.yaml"
_POM: Final = DEPLOY / "local" / "jmx-exporter-pom.xml"


def fetch(cache_dir: Path, log_dir: Path, note: Note) -> Path:
    """The agent's jar, downloaded the first time.

    Raises:
        LocalStackError: it cannot be downloaded, or is not the one that our list names.
    """
    text = _POM.read_text("utf-8")
    version, wanted = (_only(text, pattern) for pattern in (r"javaagent</artifactId><version>([^<]+)", r"<sha256>(\w+)"))
    name = f"jmx_prometheus_javaagent-{version}.jar"
    target = cache_dir / f"jmx-exporter-{version}"
    if not target.exists():
        with cached(target, note) as folder:
            if folder is not None:
                note("downloading Kafka's JMX exporter (3 MB)")
                maven = which("mvn")
                if maven is None:
                    raise LocalStackError("Maven is not installed: apt-get install maven")
                command = [maven, "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
                run_logged(command, log_dir / "install.log", note, what="downloading Kafka's JMX exporter", hint=NETWORK)
                _check(folder / name, wanted)
    _check(target / name, wanted)
    return target / name


def agent(jar: Path, port: int) -> str:
    """The option of Java that serves /metrics on the loopback interface. A taken port ends the Java program at its start."""
    return f"-javaagent:{jar}={LOOPBACK}:{port}:{RULES.resolve()}"


def _check(jar: Path, wanted: str) -> None:
    found = hashlib.sha256(jar.read_bytes()).hexdigest() if jar.exists() else "no file"
    if found != wanted:
        raise LocalStackError(f"{jar} has SHA-256 {found}, wanted is {wanted}: remove {jar.parent} and repeat")


def _only(text: str, pattern: str) -> str:
    (found,) = re.findall(pattern, text)
    return str(found)
