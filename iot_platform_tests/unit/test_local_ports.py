"""Taken ports are reported with the port, its owner and the variable to change."""

import os
import socket
from pathlib import Path

import pytest

from iot_platform.local import ports
from iot_platform.local.errors import LocalStackError


def test_taken_port_names_port_owner_and_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=rf"port {port} for kafka .*pid {os.getpid()}.*IOT_KAFKA_PORT=<port>"):
            ports.require_free(port, "kafka", "IOT_KAFKA_PORT")


def test_free_ports_are_free_and_different() -> None:
    found = ports.free_ports(5)
    assert len(set(found)) == 5
    for port in found:
        ports.require_free(port, "anything", "IOT_ANYTHING")


def test_no_outgoing_connection_takes_a_free_port_while_its_server_is_away() -> None:
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    assert all(1024 <= port < below for port in ports.free_ports(5))
