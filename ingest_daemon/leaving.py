"""How a process ends whose threads may still wait inside a C library."""

import logging
import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process with this exit code; without the interpreter's own clean-up if daemon threads, and only such, are left.

    A thread inside librdkafka or libpq goes on while the interpreter and OpenSSL are taken down under it; the process then ends by
    SIGSEGV now and then instead of with its code. Everything of ours is closed and durable before; only output is left to flush.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if not others or not all(thread.daemon for thread in others):
        sys.exit(code)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
