"""The ground that browser tests stand on: a login, a canary that hears, pictures."""

from __future__ import annotations

import socket

import pytest


def test_a_logged_in_browser_sees_the_server_and_others_do_not(live_server, page, chromium):
    answer = page.request.get(f"{live_server.url}sandbox/api/conversations")
    assert answer.status == 200
    stranger = chromium.new_context()
    assert stranger.request.get(f"{live_server.url}sandbox/api/conversations").status == 401
    stranger.close()


def test_the_canary_hears_requests(canary, page):
    page.set_content(f"<img src='{canary.named_url}/x'>")
    assert canary.wait_for_request() == "GET /x HTTP/1.1"
    with pytest.raises(AssertionError):
        canary.assert_silent()


def test_the_canary_hears_a_datagram(canary):
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", ("127.0.0.1", canary.port))
    with pytest.raises(AssertionError):
        canary.assert_silent()
    assert canary.datagrams == 1


def test_the_canary_hears_a_connection_that_sends_nothing(canary):
    socket.create_connection(("127.0.0.1", canary.port)).close()
    with pytest.raises(AssertionError):
        canary.assert_silent()
    assert (canary.requests, canary.connections) == ([], 1)


def test_pictures_of_a_file_that_was_shared(live_server, page, screenshot):
    conversation = live_server.conversation()
    card = live_server.share(conversation, "hello.txt", b"hello")
    assert card["preview"] == "text"
    page.set_content(f"<h1>{card['name']}</h1>")
    assert screenshot(page, "ground").read_bytes().startswith(b"\x89PNG")
