"""The forwarder inside: bytes both ways, ends that travel, bounds, and a plain word when there is
no way out."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from sandbox_guest.forwarder import MAX_CONNECTIONS, Connection, Forwarder
from sandbox_guest.init import listen

from tests.local_guest import PYTHON_PATH


@pytest.fixture
def directory(short_dir):
    made = short_dir / "egress"
    made.mkdir()
    return made


@pytest.fixture
def way_out(directory):
    """The forwarder as a process; gives what connects to it."""
    listener = listen(0)
    code = (
        "import socket,sys; from sandbox_guest.forwarder import Forwarder;"
        "Forwarder(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]).run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(listener.fileno()), str(directory)],
        pass_fds=[listener.fileno()],
        env={**os.environ, "PYTHONPATH": PYTHON_PATH},
    )
    address = listener.getsockname()

    def connect() -> socket.socket:
        client = socket.create_connection(address, 10)
        clients.append(client)
        return client

    clients: list[socket.socket] = []
    connect.process = process
    yield connect
    for client in clients:
        client.close()
    process.kill()
    process.wait()
    listener.close()


@contextlib.contextmanager
def proxy(directory, name="h1.sock"):
    """A listener as the host's proxy has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(directory / name))
        server.listen(128)
        server.settimeout(10)
        yield server


def accept(server: socket.socket) -> socket.socket:
    sock, _ = server.accept()
    sock.settimeout(10)
    return sock


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, "it ended early"
        data += piece
    return data


def test_bytes_go_both_ways_unchanged(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        client.sendall(b"CONNECT example:443 HTTP/1.1\r\n\r\n")
        with accept(server) as host:
            assert read(host, 32) == b"CONNECT example:443 HTTP/1.1\r\n\r\n"
            host.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            assert read(client, 19) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_large_contents_arrive_whole_in_both_directions_at_once(way_out, directory):
    up, down = os.urandom(8_000_000), os.urandom(8_000_000)
    with proxy(directory) as server:
        client = way_out()
        with accept(server) as host:
            got = {}

            def run(name, sock, data):
                sender = threading.Thread(target=lambda: (sock.sendall(data), _end(sock)))
                sender.start()
                got[name] = read_all(sock)
                sender.join()

            one = threading.Thread(target=run, args=("client", client, up))
            one.start()
            run("host", host, down)
            one.join()
    assert got == {"client": down, "host": up}


def _end(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def test_the_end_of_one_direction_leaves_the_other_open(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        client.sendall(b"request")
        _end(client)
        with accept(server) as host:
            assert read_all(host) == b"request"
            host.sendall(b"answer")
            assert read(client, 6) == b"answer"
            _end(host)
            assert client.recv(1) == b""


def test_the_host_may_end_its_direction_first(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        with accept(server) as host:
            host.sendall(b"greeting")
            _end(host)
            assert read_all(client) == b"greeting"
            client.sendall(b"more")
            assert read(host, 4) == b"more"


def test_a_proxy_that_closes_ends_the_client_also_one_that_never_closes(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        host = accept(server)
        host.sendall(b"refused")
        host.close()
        assert read_all(client) == b"refused"
        # The client's own direction is torn down too: its bytes find nobody.
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            _send_until_refused(client)


def _send_until_refused(sock: socket.socket) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        sock.sendall(b"x")
        time.sleep(0.01)


def test_a_client_that_vanishes_ends_the_proxys_side(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        client.sendall(b"hello")
        with accept(server) as host:
            assert read(host, 5) == b"hello"
            client.close()
            assert host.recv(1) == b""


def test_who_does_not_read_stops_who_sends(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        client.sendall(b"go")
        with accept(server) as host:
            read(host, 2)
            before = _rss(way_out.process.pid)
            host.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 256 * 1024 * 1024:
                    sent += host.send(b"x" * 65536)
            assert sent < 64 * 1024 * 1024  # the sockets' own buffers
            assert _rss(way_out.process.pid) - before < 4 * 1024 * 1024
            busy = _cpu_seconds(way_out.process.pid)
            assert client.recv(1) == b"x"
            assert _cpu_seconds(way_out.process.pid) - busy < 1  # and waits without turning


def test_a_proxy_that_closes_on_a_client_that_does_not_read_costs_no_processor(way_out, directory):
    with proxy(directory) as server:
        client = way_out()
        host = accept(server)
        host.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                host.send(b"x" * 65536)
        host.close()
        before = _cpu_seconds(way_out.process.pid)
        time.sleep(1)  # the condition is that nothing happens in this time
        assert _cpu_seconds(way_out.process.pid) - before < 0.3
        assert len(read_all(client)) > 65536


def test_more_connections_than_the_bound_wait_their_turn(way_out, directory):
    with proxy(directory) as server:
        clients = [way_out() for _ in range(MAX_CONNECTIONS + 8)]
        for client in clients:
            client.sendall(b"hello")
        hosts = [accept(server) for _ in range(MAX_CONNECTIONS)]
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            accept(server)
        server.settimeout(10)
        for host in hosts[:8]:
            host.close()
        hosts += [accept(server) for _ in range(8)]
        assert read(hosts[-1], 5) == b"hello"
        for host in hosts:
            host.close()


def test_without_a_proxy_the_answer_comes_at_once(way_out):
    client = way_out()
    started = time.monotonic()
    client.sendall(b"CONNECT example:443 HTTP/1.1\r\n\r\n")
    answer = read_all(client)
    assert time.monotonic() - started < 10  # it waits for nobody
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 The way out does not answer\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"tell the user" in body


def test_a_switched_off_way_out_is_told_with_the_hosts_reason(way_out, directory):
    (directory / "off").write_text("This server allows no hosts.\n")
    client = way_out()
    client.sendall(b"GET http://example/ HTTP/1.1\r\n\r\n")
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 403 No network in this sandbox\r\n")
    assert answer.endswith(b"\r\n\r\nThis server allows no hosts.\n")


def test_a_socket_of_a_dead_server_is_passed_over(way_out, directory):
    with proxy(directory, "a-dead.sock"):
        pass  # closed: its name stays
    with proxy(directory, "b-live.sock") as server:
        client = way_out()
        client.sendall(b"x")
        with accept(server) as host:
            assert read(host, 1) == b"x"


def test_the_next_connection_finds_the_socket_of_the_next_server(way_out, directory):
    assert b"502" in _ask(way_out())
    with proxy(directory, "later.sock") as server:
        client = way_out()
        client.sendall(b"x")
        with accept(server) as host:
            assert read(host, 1) == b"x"


def _ask(client: socket.socket) -> bytes:
    client.sendall(b"GET http://example/ HTTP/1.1\r\n\r\n")
    return read_all(client)


def test_it_ends_when_nobody_has_come_for_a_while(directory, monkeypatch):
    monkeypatch.setattr("sandbox_guest.forwarder._TICK_SECONDS", 0.01)
    monkeypatch.setattr("sandbox_guest.forwarder._IDLE_SECONDS", 0.05)
    listener = listen(0)
    forwarder = threading.Thread(target=Forwarder(listener, str(directory)).run, daemon=True)
    forwarder.start()
    with socket.create_connection(listener.getsockname(), 10) as client:
        client.settimeout(0.5)
        assert b"502" in _ask(client)
    forwarder.join(10)
    assert not forwarder.is_alive()
    listener.close()


def test_a_half_closed_silent_connection_is_stale_after_its_time():
    ours, client = socket.socketpair()
    proxy_end, host = socket.socketpair()
    for sock in (client, proxy_end):
        sock.setblocking(False)
    connection = Connection(client, proxy_end)
    try:
        host.shutdown(socket.SHUT_WR)
        assert connection.handle(proxy_end.fileno(), 1)
        assert not connection.is_stale(time.monotonic())
        assert connection.is_stale(time.monotonic() + 61)
    finally:
        for sock in (ours, client, proxy_end, host):
            sock.close()


def test_a_port_that_is_taken_is_no_error():
    listener = listen(0)
    try:
        assert listen(listener.getsockname()[1]) is None
    finally:
        listener.close()


def _rss(pid: int) -> int:
    import psutil

    return psutil.Process(pid).memory_info().rss


def _cpu_seconds(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
