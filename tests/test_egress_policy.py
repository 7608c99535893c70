"""Which host, which port, which address: both sides of every border, and properties of the whole."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.policy.egress import NOT_LISTED, EgressPolicy
from jupyter_sandbox.policy.egress_addresses import AddressPolicy, kind_of_forbidden
from jupyter_sandbox.policy.egress_names import (
    NameRefused,
    shown,
    to_canonical_host,
    to_fetch_target,
    to_tunnel_target,
)
from jupyter_sandbox.policy.egress_rules import EgressRules, HostRule

RULES = EgressRules(
    (
        HostRule("files.good.example", frozenset({443})),
        HostRule("good.example", frozenset({443}), frozenset({80})),
        HostRule("archive.example", frozenset(), frozenset({80, 8080})),
    )
)
POLICY = EgressPolicy(RULES)
LISTED = {rule.host for rule in RULES.hosts}


# Hosts

NOT_A_LISTED_HOST = [
    # addresses, in all the ways that inet_aton and getaddrinfo read
    *("127.0.0.1", "2130706433", "0x7f000001", "0X7F000001", "0177.0.0.1", "127.1", "127.0.1"),
    *("0x7f.1", "0", "0.0.0.0", "[::1]", "::1", "[::ffff:169.254.169.254]", "[fe80::1%25eth0]"),
    *("169.254.169.254", "169.254.169.254.", "10.0.0.1", "[64:ff9b::a9fe:a9fe]", "[::]"),
    *("good.example.1", "good.example.0x7f", "1.good"),
    # names that only look like it
    *("localhost", "good", "example", "xgood.example", "good.example.evil.example"),
    *("good.examplex", "good-example", "good..example", ".good.example", "good.example.."),
    *("-good.example", "good-.example", "*.good.example", "*.example", "*", "_good.example"),
    # parser tricks
    *("good.example\x00.evil.example", "good.example%00.evil.example", "good.example%2eevil"),
    *("good.example#.evil.example", "good.example?.evil.example"),
    *("good.example\\.evil.example", "evil.example@good.example", "good.example@evil.example"),
    *(
        "user:word@good.example",
        " good.example",
        "good.example ",
        "good.example\t",
        "good.example\r",
    ),
    *(
        "good.example\n",
        "good.example,evil.example",
        "good.example;",
        "[good.example]",
        "good.example]",
    ),
    # other letters
    *(
        "gооd.example",
        "good。example",
        "good．example",
        "ｇood.example",
        "good.example­",
        "good.exam\u200bple",
    ),
    *("xn--good-.example", "GOOD.EXAMPLE\u0130", "goo\u1e0b.example", "ﬁles.good.example"),
    # length
    "a" * 64 + ".example",
    ".".join(["a" * 60] * 5),
    "",
    ".",
]


@pytest.mark.parametrize("host", NOT_A_LISTED_HOST)
def test_no_other_spelling_becomes_a_listed_host(host):
    for method, target in (("CONNECT", f"{host}:443"), ("GET", f"http://{host}/")):
        decision = POLICY.decide(method, target)
        assert not decision
        assert decision.target is None
        assert decision.reason
        assert POLICY.refusal(decision.named, decision.reason).isascii()


@pytest.mark.parametrize("host", ["good.example", "GOOD.example", "Good.Example.", "good.example."])
def test_case_and_one_final_dot_are_the_same_host(host):
    decision = POLICY.decide("CONNECT", f"{host}:443")
    assert decision
    assert decision.target.host == "good.example"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("good.example", "CONNECT needs host:port"),
        ("good.example:", "the port is not a number from 1 to 65535"),
        ("good.example:0443", "the port is not a number from 1 to 65535"),
        ("good.example:443:443", "addresses are not allowed, only host names"),
        ("good.example:65536", "the port is not a number from 1 to 65535"),
        ("good.example:+443", "the port is not a number from 1 to 65535"),
        ("good.example:٤٤٣", "the port is not a number from 1 to 65535"),
        ("good.example:80", "CONNECT is allowed to port 443 of this host only"),
        ("good.example:22", "CONNECT is allowed to port 443 of this host only"),
        ("archive.example:443", "this host is allowed over plain http only"),
        ("evil.example:443", NOT_LISTED),
        ("127.0.0.1:443", "addresses are not allowed, only host names"),
        ("[::1]:443", "addresses are not allowed, only host names"),
        ("localhost:443", "the host name has no domain"),
        ("good_.example:443", "it is not a valid host name"),
    ],
)
def test_a_tunnel_is_refused_with_its_reason(target, reason):
    decision = POLICY.decide("CONNECT", target)
    assert (decision.allowed, decision.reason) == (False, reason)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://files.good.example/x", "this host is allowed over https only"),
        ("http://archive.example:81/", "plain http is allowed to port 80, 8080 of this host only"),
        ("http://evil.example/", NOT_LISTED),
        ("http://169.254.169.254/latest/meta-data", "addresses are not allowed, only host names"),
        ("http://good.example:080/", "the port is not a number from 1 to 65535"),
        *(
            (url, "only plain http:// URLs can be fetched, everything else by CONNECT")
            for url in (
                *("https://good.example/", "/", "*", "good.example", "ftp://good.example/"),
                *("http:/good.example/", "http:good.example", "HTTP://good.example/"),
                *("http://good.example@evil.example/", "http://good.example\\@evil.example/"),
                *("http://good.example/#x", "http://good.example?x", "http://good.example/a b"),
                "http://good.example/\u00e4",
            )
        ),
        ("http:///", "the host name is empty or too long"),
    ],
)
def test_a_fetch_is_refused_with_its_reason(url, reason):
    decision = POLICY.decide("GET", url)
    assert (decision.allowed, decision.reason) == (False, reason)


def test_a_fetch_goes_to_the_host_that_was_decided_on():
    target = POLICY.decide("HEAD", "http://Archive.Example.:8080/a/b?c=d;e%20f").target
    assert (target.host, target.port, target.path) == ("archive.example", 8080, "/a/b?c=d;e%20f")
    assert POLICY.decide("GET", "http://good.example").target.path == "/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PRI", "get", ""])
def test_no_other_method_is_allowed(method):
    decision = POLICY.decide(method, "http://good.example/")
    assert decision.reason == "only CONNECT, GET and HEAD are allowed"
    assert decision.named == "good.example"


def test_the_one_text_names_the_host_the_reason_what_is_allowed_and_that_a_retry_is_no_use():
    assert POLICY.refusal("evil.example:443", NOT_LISTED) == (
        "Network access to evil.example:443 was refused: the host is not on the list of allowed "
        "hosts. Allowed: https to files.good.example, good.example; http to good.example, "
        "archive.example, archive.example:8080. A retry will not help."
    )
    assert "Allowed: nothing." in EgressPolicy(EgressRules()).refusal("a.example:443", "x")


def test_the_one_text_stays_short_however_long_the_list_is():
    rules = EgressRules(tuple(HostRule(f"h{n}.example", frozenset({443})) for n in range(500)))
    text = EgressPolicy(rules).refusal("a.example:443", NOT_LISTED)
    assert " and 476 more." in text
    assert len(text) < 2000


def test_a_path_or_a_password_is_never_shown():
    for target in ("https://u:word@evil.example/secret?token=1", "http://[/secret", "x/secret?y"):
        assert "secret" not in POLICY.decide("GET", target).named
        assert "word" not in POLICY.decide("GET", target).named


@given(st.text(max_size=80))
def test_canonical_is_canonical_again(text):
    try:
        name = to_canonical_host(text)
    except NameRefused:
        return
    assert to_canonical_host(name) == name
    with pytest.raises(ValueError, match="does not appear"):
        ip_address(name)


_near = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="godexampl.:[]@%#/?\\0123456789x-* \0\t", max_size=40),
    st.builds(
        lambda host, left, right, port: f"{left}{host}{right}{port}",
        st.sampled_from(sorted(LISTED)),
        st.text(max_size=4),
        st.text(max_size=4),
        st.sampled_from(["", ":443", ":80", ":8080", ":22", "/", "/x"]),
    ),
)


@given(st.sampled_from(["CONNECT", "GET", "HEAD", "POST"]), _near, st.booleans())
def test_what_is_allowed_is_in_the_list_and_nothing_crashes(method, text, as_url):
    target = f"http://{text}" if as_url else text
    decision = POLICY.decide(method, target)
    assert decision.named.isascii()
    assert decision.named.isprintable()
    if not decision:
        assert decision.target is None
        return
    (rule,) = (r for r in RULES.hosts if r.host == decision.target.host)
    ports = rule.tunnel_ports if method == "CONNECT" else rule.fetch_ports
    assert decision.target.port in ports
    read = to_tunnel_target(target) if method == "CONNECT" else to_fetch_target(target)
    assert read == decision.target


@given(st.text(max_size=300))
def test_what_is_shown_is_harmless(text):
    found = shown(text)
    assert len(found) <= 80
    assert not set(found) & set("<>&\"'\r\n\\ ")


# Addresses: the last one inside and the first one outside of each block

V4_BORDERS = [
    ("0.0.0.0", "0.255.255.255", None, "1.0.0.0"),
    ("10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
    ("100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"),
    ("127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"),
    ("169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"),
    ("172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"),
    ("192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0"),
    ("192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"),
    ("192.31.196.0", "192.31.196.255", "192.31.195.255", "192.31.197.0"),
    ("192.52.193.0", "192.52.193.255", "192.52.192.255", "192.52.194.0"),
    ("192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0"),
    ("192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"),
    ("192.175.48.0", "192.175.48.255", "192.175.47.255", "192.175.49.0"),
    ("198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0"),
    ("198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"),
    ("203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"),
    ("224.0.0.0", "255.255.255.255", "223.255.255.255", None),
    ("168.63.129.16", "168.63.129.16", "168.63.129.15", "168.63.129.17"),
]
V6_BORDERS = [
    ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2000:ffff::", "2001:200::"),
    ("2001:db8::", "2001:db8:ffff::", "2001:db7:ffff::", "2001:db9::"),
    ("2002::", "2002:ffff:ffff::", "2001:ffff::", "2003::"),
    ("2620:4f:8000::", "2620:4f:8000:ffff::", "2620:4f:7fff::", "2620:4f:8001::"),
    ("3fff::", "3fff:fff:ffff::", "3ffe:ffff::", "3fff:1000::"),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:ffff::", None),
]


@pytest.mark.parametrize(("first", "last", "before", "after"), V4_BORDERS + V6_BORDERS)
def test_each_block_is_refused_from_its_first_to_its_last_address(first, last, before, after):
    policy = AddressPolicy()
    assert not policy.decide_address(first)
    assert not policy.decide_address(last)
    for outside in (before, after):
        assert outside is None or policy.decide_address(outside), outside


PYTHON_CALLS_THEM_GLOBAL = [
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "::7f00:1",
    "fec0::1",
    "5f00::1",
    "192.88.99.1",
]


@pytest.mark.parametrize(
    "text",
    [
        *PYTHON_CALLS_THEM_GLOBAL,
        *("3fff::1", "::", "::1", "::ffff:8.8.8.8", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1"),
        *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fd00::1", "fd7a:115c:a1e0::53"),
        *(
            "fe80::1",
            "fe80::1%eth0",
            "2606:4700::1%1",
            "ff02::1",
            "ff0e::1",
            "100::1",
            "100:0:0:1::1",
        ),
        *("2606:4700::5efe:a00:1", "2606:4700::200:5efe:7f00:1", "fd00:ec2::254"),
        *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "169.254.170.2"),
        *("", "good.example", "1.2.3", "0x7f000001", "1.2.3.4 ", "::g"),
    ],
)
def test_an_address_that_is_not_public_is_refused(text):
    assert not AddressPolicy().decide_address(text)


def test_pythons_own_opinion_is_not_asked():
    assert any(ip_address(text).is_global for text in PYTHON_CALLS_THEM_GLOBAL)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "151.101.0.223", "2606:4700::6810:1", "2a04:4e42::223"]
)
def test_a_public_address_is_allowed(text):
    assert AddressPolicy().decide_address(text)


def test_one_bad_answer_spoils_all_and_no_answer_is_none():
    policy = AddressPolicy()
    assert policy.decide_answer(["8.8.8.8", "2606:4700::1"])
    assert not policy.decide_answer(["8.8.8.8", "10.0.0.1"])
    assert not policy.decide_answer(["10.0.0.1", "8.8.8.8"])
    assert not policy.decide_answer([])


def test_an_administrator_admits_networks_but_never_metadata_or_disguises():
    policy = AddressPolicy(["10.1.0.0/16", "169.254.0.0/16", "fd12::/32", "::/16"], ["10.1.2.0/24"])
    assert policy.decide_address("10.1.0.1")
    assert policy.decide_address("10.1.255.255")
    assert policy.decide_address("fd12::1")
    assert policy.decide_address("169.254.1.1")
    for text in (
        "10.2.0.0",
        "10.0.255.255",
        "10.1.2.0",
        "10.1.2.255",
        "fd13::1",
        "169.254.169.254",
    ):
        assert not policy.decide_address(text)
    for text in ("::ffff:10.1.0.1", "::10.1.0.1", "64:ff9b::a01:1", "2002:a01:1::"):
        assert not policy.decide_address(text)


def test_an_administrator_refuses_public_networks():
    policy = AddressPolicy(deny_cidrs=["8.8.8.0/24", "2606:4700::/32"])
    assert policy.decide_address("8.8.9.0")
    assert not policy.decide_address("8.8.8.255")
    assert not policy.decide_address("2606:4700::1")


@given(st.integers(0, 2**32 - 1))
def test_what_python_calls_not_global_is_refused_of_ipv4(number):
    address = IPv4Address(number)
    if not address.is_global or address.is_multicast:
        assert kind_of_forbidden(address)


@given(st.integers(0, 2**128 - 1))
def test_what_python_calls_not_global_is_refused_of_ipv6(number):
    address = IPv6Address(number)
    if not address.is_global or address.is_multicast or number >> 125 != 1:
        assert kind_of_forbidden(address)


@given(st.text(max_size=50))
def test_no_text_crashes_the_address_decision(text):
    assert AddressPolicy().decide_answer([text]).reason != NOT_LISTED
