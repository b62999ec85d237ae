"""`python -m iot_platform.local.launch SPEC`: becomes the program of a spec file, with default signals and exactly its environment.

The file keeps secrets out of `ps`. SIGINT is reset because a shell that starts a job in the background leaves it
ignored, and Dagster then ignores SIGTERM too.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Replace this process; does not return."""
    spec = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    command = spec["command"]
    os.execvpe(command[0], command, spec["environment"])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
