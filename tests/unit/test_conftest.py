"""The guard around all tests: a test that could reach the network would pass here and fail on a machine without one."""

import asyncio
import socket
from pathlib import Path

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_connections_that_would_leave_the_machine_are_refused(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as stream, pytest.raises(ConnectionRefusedError, match="loopback"):
        stream.connect(address)
    with socket.socket(family, socket.SOCK_STREAM) as stream, pytest.raises(ConnectionRefusedError, match="loopback"):
        stream.connect_ex(address)
    with socket.socket(family, socket.SOCK_DGRAM) as datagram, pytest.raises(ConnectionRefusedError, match="loopback"):
        datagram.sendto(b"x", address)
    with pytest.raises(ConnectionRefusedError, match="loopback"):
        socket.create_connection(address)


def test_names_are_not_looked_up() -> None:
    with pytest.raises(ConnectionRefusedError, match="loopback"):
        socket.getaddrinfo("example.invalid", 80)
    with pytest.raises(ConnectionRefusedError, match="loopback"):
        socket.gethostbyname("example.invalid")
    with pytest.raises(ConnectionRefusedError, match="loopback"):
        socket.create_connection(("example.invalid", 443))


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        assert datagram.sendto(b"xy", datagram.getsockname()) == 2


def test_unix_sockets_and_event_loops_are_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"
