"""The parsers of what a sandbox sends: request heads and TLS greetings; and what is written anew."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.policy.egress_names import Target
from jupyter_sandbox.proxies.forward.answers import refusal
from jupyter_sandbox.proxies.forward.client_hello import (
    MAX_HELLO_BYTES,
    HelloRefused,
    find_server_name,
)
from jupyter_sandbox.proxies.forward.fetch import to_closing_answer, to_request
from jupyter_sandbox.proxies.forward.head import (
    MAX_HEAD_BYTES,
    HeadRefused,
    parse_head,
    require_no_body,
    require_possible,
)
from jupyter_sandbox.proxies.forward.upstream import Upstream
from tests.egress_lab import GOOD, hello, record

LINE = b"GET http://good.example/ HTTP/1.1\r\n"


def test_a_head_is_read():
    head = parse_head(LINE + b"Host: good.example\r\nAccept:  a/b \r\nX:\r\n\r\n")
    assert (head.method, head.target) == ("GET", "http://good.example/")
    assert head.headers == (("host", "good.example"), ("accept", "a/b"), ("x", ""))
    assert head.first("ACCEPT") == ""
    assert parse_head(b"CONNECT a.b:443 HTTP/1.0\r\n\r\n").method == "CONNECT"


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://good.example/ HTTP/1.1\n\n",
        b"GET http://good.example/ HTTP/1.1\n\r\n\r\n",
        b"GET http://good.example/ HTTP/1.1\r\r\n\r\n",
        b"GET  http://good.example/ HTTP/1.1\r\n\r\n",
        b" GET http://good.example/ HTTP/1.1\r\n\r\n",
        b"GET http://good.example/ HTTP/1.1 \r\n\r\n",
        b"GET\thttp://good.example/\tHTTP/1.1\r\n\r\n",
        b"GET http://good.example/ HTTP/2.0\r\n\r\n",
        b"GET http://good.example/ HTTP/1.10\r\n\r\n",
        b"GET http://good.example/ http/1.1\r\n\r\n",
        b"GET http://good.example/\r\n\r\n",
        b"get http://good.example/ HTTP/1.1\r\n\r\n",
        b"\r\n" + LINE + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        LINE + b"Host : good.example\r\n\r\n",
        LINE + b" folded\r\n\r\n",
        LINE + b"A: b\r\n folded\r\n\r\n",
        LINE + b"A: b\r\n\tfolded\r\n\r\n",
        LINE + b": nameless\r\n\r\n",
        LINE + b"no colon\r\n\r\n",
        LINE + b"A\x00: b\r\n\r\n",
        LINE + b"A: b\x00c\r\n\r\n",
        LINE + b"A: b\rB: c\r\n\r\n",
        LINE + b"A: b\nB: c\r\n\r\n",
        LINE + b"A: \xc3\xa4\r\n\r\n",
        LINE + b"A(b): c\r\n\r\n",
        LINE + b"A: \x7f\r\n\r\n",
        LINE + b"A: \x0b\r\n\r\n",
        LINE,
        b"",
        b"\r\n\r\n",
    ],
)
def test_a_head_that_two_could_read_differently_is_refused(data):
    with pytest.raises(HeadRefused) as refused:
        parse_head(data)
    assert refused.value.status == 400


def test_a_head_too_long_or_with_too_many_headers_is_refused():
    for more in (b"A: " + b"b" * MAX_HEAD_BYTES + b"\r\n", b"A: b\r\n" * 101):
        with pytest.raises(HeadRefused) as refused:
            parse_head(LINE + more + b"\r\n")
        assert refused.value.status == 431
    assert parse_head(LINE + b"A: b\r\n" * 100 + b"\r\n")


@pytest.mark.parametrize(
    "header",
    [
        *("Content-Length: 5", "Content-Length: 0\r\nContent-Length: 0", "Content-Length: +0"),
        *("Content-Length: 00", "Content-Length: 0, 0", "Transfer-Encoding: chunked"),
        *("Transfer-Encoding: identity", "transfer-ENCODING: x\r\nContent-Length: 0"),
        *("Expect: 100-continue", "Upgrade: h2c", "Upgrade: websocket", "Trailer: x"),
        *("Host: a.b\r\nHost: c.d", "Range: a\r\nRange: b"),
    ],
)
def test_a_head_that_announces_a_body_or_another_protocol_is_refused(header):
    head = parse_head(LINE + header.encode() + b"\r\n\r\n")
    with pytest.raises(HeadRefused):
        require_no_body(head)


def test_an_announced_empty_body_is_none():
    require_no_body(parse_head(LINE + b"Content-Length: 0\r\n\r\n"))


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"\x05\x01\x00", b"\x04", b"GET /\n", b"A\rB", b"\xff"]
)
def test_the_beginning_of_another_protocol_is_refused_at_once(data):
    with pytest.raises(HeadRefused):
        require_possible(data)


@pytest.mark.parametrize("data", [b"", b"C", b"GET x\r", b"GET x\r\n", b"GET x HTTP/1.1\r\nA:\tb"])
def test_the_beginning_of_a_head_is_waited_for(data):
    require_possible(data)


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_head_parser_and_what_it_reads_is_ascii(data):
    for whole in (data, LINE + data + b"\r\n\r\n"):
        try:
            head = parse_head(whole)
        except HeadRefused:
            continue
        assert head.target.isascii()
        for name, value in head.headers:
            assert name == name.lower()
            assert not set(name + value) & set("\r\n\0")


# What goes out over plain http


def test_a_request_is_written_anew_without_what_only_the_sandbox_may_know():
    head = parse_head(
        LINE + b"Host: evil.example\r\nCookie: a\r\nAuthorization: b\r\nConnection: keep-alive\r\n"
        b"Proxy-Authorization: c\r\nX-Own: d\r\nRange: bytes=1-\r\nUser-Agent: apt\r\n\r\n"
    )
    assert to_request(head, Target("good.example", 80, "/x?y")) == (
        b"GET /x?y HTTP/1.1\r\nhost: good.example\r\nrange: bytes=1-\r\nuser-agent: apt\r\n"
        b"connection: close\r\n\r\n"
    )
    through = to_request(head, Target("good.example", 8080, "/"), "Basic eA==").decode()
    assert through.startswith("GET http://good.example:8080/ HTTP/1.1\r\nhost: good.example:8080")
    assert "proxy-authorization: Basic eA==" in through


def test_an_answer_announces_the_end_of_the_connection():
    assert to_closing_answer(b"HTTP/1.1 200 OK\r\nA: b\r\n") is None
    answer = to_closing_answer(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: x\r\nSet-Cookie: s\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    )
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nconnection: close\r\n\r\nbody"


def test_a_refusal_of_head_has_no_body():
    whole, headless = refusal(403, "no"), refusal(403, "no", with_body=False)
    assert whole == headless + b"no\n"


def test_the_sites_proxy_is_read_with_its_credentials_hidden():
    upstream = Upstream.from_url("http://us%40er:pa%3Ass@proxy.example:3128")
    assert (upstream.host, upstream.port) == ("proxy.example", 3128)
    assert upstream.authorization == "Basic dXNAZXI6cGE6c3M="
    assert "dXNA" not in repr(upstream)
    assert Upstream.from_url("") is None


# TLS greetings


def real_hello(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_in_a_real_greeting_is_found_once_it_is_whole(version):
    data = real_hello(GOOD, version)
    assert find_server_name(data) == GOOD
    assert find_server_name(data + b"what follows") == GOOD
    for size in range(len(data)):
        assert find_server_name(data[:size]) is None


def test_a_real_greeting_without_a_name_is_refused():
    with pytest.raises(HelloRefused, match="no SNI"):
        find_server_name(real_hello(None))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 50])
def test_a_greeting_in_many_records_is_put_together(size):
    message = hello(GOOD)[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    assert find_server_name(b"".join(record(piece) for piece in pieces)) == GOOD


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x00\x02",  # SSL 2
        b"\x16\x02\x00\x00\x05",
        b"\x17\x03\x03\x00\x05hello",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\x40\x01" + b"\x01",  # longer than a record may be
        record(b"\x02\x00\x00\x00"),  # a ServerHello
        record(b"\x01\x00\x00\x00"),
        record(b"\x01\xff\xff\xff"),
    ],
)
def test_what_is_no_greeting_is_refused(data):
    with pytest.raises(HelloRefused):
        find_server_name(data)


def with_extensions(extensions: bytes) -> bytes:
    body = b"\x03\x03" + b"r" * 32 + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    return record(b"\x01" + len(body).to_bytes(3, "big") + body)


def sni(*names: bytes, kind: int = 0, extra: bytes = b"") -> bytes:
    entries = b"".join(bytes([kind]) + len(n).to_bytes(2, "big") + n for n in names)
    entries = len(entries).to_bytes(2, "big") + entries + extra
    return b"\x00\x00" + len(entries).to_bytes(2, "big") + entries


@pytest.mark.parametrize(
    "extensions",
    [
        b"",
        sni(),
        sni(b"good.example", b"evil.example"),
        sni(b"good.example") + sni(b"evil.example"),
        sni(b"good.example") + sni(b"good.example"),
        sni(b"good.example", kind=1),
        sni(b"good.example", extra=b"x"),
        sni(b"good.example") + b"\x00",
        sni(b"good.example")[:-1],
        sni("gööd.example".encode()),
    ],
)
def test_a_greeting_without_exactly_one_name_is_refused(extensions):
    with pytest.raises(HelloRefused):
        find_server_name(with_extensions(extensions))


def test_a_greeting_that_never_ends_is_refused_at_its_bound():
    endless = record(b"\x01\x00\x3f\xff" + b"x" * 60) + record(b"y") * 3000
    assert len(endless) > MAX_HELLO_BYTES
    with pytest.raises(HelloRefused):
        find_server_name(endless)
    assert find_server_name(hello(GOOD, pad=8000)) == GOOD


@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_bytes_crash_the_greeting_parser(data, at):
    whole = hello(GOOD)
    for each in (data, b"\x16\x03\x01" + data, whole[:at] + data, whole[:at] + data + whole[at:]):
        try:
            name = find_server_name(each)
        except HelloRefused:
            continue
        assert name is None or name.isascii()
