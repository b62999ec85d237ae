"""`python -m iot_platform_tests.support.brokers NAME [--port N] [--folder DIR]`: runs a broker until Ctrl-C or SIGTERM."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from threading import Event

from iot_platform.local.errors import LocalStackError
from iot_platform_tests.support.brokers.catalogue import BROKERS
from iot_platform_tests.support.brokers.run import RunningBroker


def main() -> int:
    """Exit code 0, or 2 where the broker can't run."""
    parser = argparse.ArgumentParser(prog="python -m iot_platform_tests.support.brokers", description="Run an MQTT broker.")
    parser.add_argument("name", choices=BROKERS)
    parser.add_argument("--port", type=int, default=0, help="MQTT's; the next two are used as well")
    parser.add_argument("--folder", type=Path, help="where data and logs are kept, and left; a temporary one unless given")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="iot-broker-"))
    asked = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    broker = RunningBroker(BROKERS[given.name], folder.resolve(), lambda text: print(f"  {text}", file=sys.stderr), given.port)
    try:
        broker.open()
        print(broker.url, f"pid={broker.pid}", f"log={broker.log}", flush=True)
        asked.wait()
    except LocalStackError as error:
        print(f"not run: {error}", file=sys.stderr)
        return 2
    finally:
        broker.close()
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
