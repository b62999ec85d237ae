"""TCP ports on the loopback interface: free ones, and who holds a taken one."""

import random
import socket
from contextlib import suppress
from pathlib import Path

from iot_platform.local.errors import LocalStackError

LOOPBACK = "127.0.0.1"
_FIRST = 10_000  # below are the well-known ports
_TRIES = 2_000


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago, and that the system gives to no outgoing connection: a server that is restarted
    finds its port free again."""
    with suppress(OSError, ValueError):
        below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
        found: list[int] = []
        for port in random.sample(range(_FIRST, below), min(_TRIES, below - _FIRST)):
            if len(found) < count and is_free(port):
                found.append(port)
        if len(found) == count:
            return found
    return _any_free_ports(count)


def _any_free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind((LOOPBACK, 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError as error:
            raise LocalStackError(f"port {port} needs root (ports below 1024 are privileged); choose a higher one") from error
        except OSError:
            return False
    return True


def require_free(port: int, purpose: str, variable: str) -> None:
    """Raise LocalStackError, naming the owner and the variable to change, when the port is taken."""
    if not is_free(port):
        raise LocalStackError(
            f"port {port} for {purpose} is already used by {owner(port)}: stop that, or choose another port with {variable}=<port>"
        )


def owner(port: int) -> str:
    """The process that listens on the port, as far as this user may see it."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # the process ended, or belongs to somebody else
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return "another process (run as root to see which)"


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return inodes
