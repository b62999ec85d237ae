"""Taken ports are reported with the port, its owner and the variable to change."""

import os
import socket

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
