"""Text of users, sandboxes, headers and files in the server's log: no escape, no line of its own."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from jupyter_sandbox.app.log_guard import guard_logs
from jupyter_sandbox.policy.log_text import LOG_FILTER, block, one_line
from jupyter_sandbox.proxies.forward.process import _log_bug
from tests.attacks import attack

FORGED = "[I 2026-01-01 00:00:00.000 SandboxApp] all is well"
EVIL = f"\x1b]0;x\x07\x1b[2J\x9b2J\r\n{FORGED}\x85\u2028\u202e{FORGED}\udc9b\x00\x7f"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800-\udfff]")


def is_clean(text: str) -> bool:
    return RAW.search(text) is None and f"\n{FORGED}" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext, größer, 日本, 🙂", "plain\ttext, größer, 日本, 🙂"),
        ("a\nb\r\n", "a\\nb\\r\\n"),
        ("\x1b[2J\x9b2J\x07\x7f\x00", "\\x1b[2J\\x9b2J\\x07\\x7f\\x00"),
        ("\x85\u2028\u2029\u202e\u2066", "\\x85\\u2028\\u2029\\u202e\\u2066"),
        ("\ud800\udc9b", "\\ud800\\udc9b"),
        ("\\x1b", "\\x1b"),
    ],
)
def test_what_is_no_plain_character_is_escaped(text, shown):
    assert one_line(text) == shown
    assert one_line(shown) == shown
    assert block(shown) == shown


def test_lines_of_a_block_do_not_begin_at_the_margin():
    assert block(f"a\n  b\n{FORGED}\n\n\x1b") == f"a\n  b\n    {FORGED}\n\n    \\x1b"
    assert block(block(EVIL)) == block(EVIL)


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Named {self.name}>"

    def __str__(self) -> str:
        raise ValueError(self.name)


@pytest.fixture
def log():
    """A logger of its own with a handler, and what it has written."""
    written = io.StringIO()
    logger = logging.Logger("test")
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    logger.addHandler(handler)
    guard_logs(logger)
    guard_logs(logger)
    assert len(logger.filters) == len(handler.filters) == 1
    return logger, written


@attack("T59")
@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (("name %s, %d of %.1f", EVIL, 3, 0.5), "name \\x1b]0;x"),
        (("%r", EVIL), "'\\x1b]0;x"),
        (("%r", Named(EVIL)), "<Named \\x1b]0;x"),
        (("%s", ValueError(EVIL)), "\\x1b]0;x"),
        (("%s", EVIL.encode("utf-8", "surrogatepass")), "b'\\x1b]0;x"),
        (("%(name)s", {"name": EVIL}), "\\x1b]0;x"),
        ((EVIL,), "\\x1b]0;x"),
        ((ValueError(EVIL),), "\\x1b]0;x"),
        (("%d", EVIL), "%d (not formatted: TypeError)"),
        (("%s %s", EVIL), "%s %s (not formatted: TypeError)"),
        (("%s", Named(EVIL)), "%s (not formatted: ValueError)"),
    ],
)
def test_a_record_stays_one_and_nothing_of_it_is_obeyed(log, words: tuple[Any, ...], starts):
    logger, written = log
    logger.warning(*words)
    text = written.getvalue()
    assert text.startswith(f"[WARNING] {starts}")
    assert is_clean(text)


@attack("T59")
def test_a_traceback_cannot_forge_a_line(log):
    logger, written = log
    try:
        raise ValueError(f"from inside:\n{FORGED}\x1b[2J")
    except ValueError:
        logger.exception("call %s failed", "x")
    text = written.getvalue()
    assert text.startswith("[ERROR] call x failed\nTraceback (most recent call last):\n  File ")
    assert "ValueError: from inside:" in text
    assert is_clean(text)


@attack("T59")
def test_the_egress_process_shows_its_bugs_likewise(capfd):
    _log_bug(ValueError(EVIL))
    assert is_clean(capfd.readouterr().err)


def test_what_we_write_in_several_lines_stays_readable(log):
    logger, written = log
    logger.info("the first call:\n    curl %s", "http://127.0.0.1/x")
    logger.info("100% of %r")
    assert written.getvalue() == (
        "[INFO] the first call:\n    curl http://127.0.0.1/x\n[INFO] 100% of %r\n"
    )


@pytest.fixture
def engine_name() -> str:
    return "bubblewrap"


@pytest.mark.bubblewrap
@attack("T59", on="")
async def test_a_request_writes_nothing_raw_into_the_servers_log(api, jp_serverapp, jp_base_url):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    jp_serverapp.log.addHandler(handler)
    address = urlsplit(jp_serverapp.connection_url)
    token = jp_serverapp.identity_provider.token

    def ask(path: bytes, referer: bytes) -> bytes:
        head = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nReferer: "
        head += referer + f"\r\nAuthorization: token {token}\r\n\r\n".encode()
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(head)
            return client.recv(100)

    base = jp_base_url.encode()
    for path, referer in (
        (base + b"sandbox/api/\x9b2J", b"x"),
        (base + b"sandbox/api/conversations/%1b", b"\x9b2J\x85" + FORGED.encode()),
        (base + b"sandbox/api/conversations", b"\x1b[2J\x07"),
    ):
        assert (await asyncio.to_thread(ask, path, referer)).startswith(b"HTTP/1.1 4")
    jp_serverapp.log.removeHandler(handler)
    assert "referer=\\x9b2J\\x85[I 2026" in written.getvalue()
    assert is_clean(written.getvalue())
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    for each in (app.log, jp_serverapp.log):
        assert LOG_FILTER in each.filters
        assert all(LOG_FILTER in handler.filters for handler in each.handlers)
