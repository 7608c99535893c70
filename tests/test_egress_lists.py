"""What administrators and clients name: hosts, networks, the site's proxy, presets."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from traitlets import TraitError
from traitlets.config import Config

from jupyter_sandbox.policy.egress_lists import (
    require_network,
    require_upstream,
    to_client_rule,
    to_host_rule,
    to_merged,
)
from jupyter_sandbox.policy.egress_presets import FROM_CLIENTS, PRESETS, listed_rules
from jupyter_sandbox.policy.egress_rules import EgressCaps, EgressRules, HostRule
from jupyter_sandbox.proxies import client_hosts
from jupyter_sandbox.proxies.client_hosts import find_preset_rules, read_apt_sources
from jupyter_sandbox.settings import SandboxEgress

S, P = frozenset({443}), frozenset({80})


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("Mirror.Example", HostRule("mirror.example", S)),
        ("mirror.example.", HostRule("mirror.example", S)),
        ("mirror.example:8443", HostRule("mirror.example", frozenset({8443}))),
        ("https://mirror.example/", HostRule("mirror.example", S)),
        ("http://mirror.example", HostRule("mirror.example", frozenset(), P)),
        ("http://mirror.example:8080", HostRule("mirror.example", frozenset(), frozenset({8080}))),
    ],
)
def test_a_host_of_a_list_is_read(entry, rule):
    assert to_host_rule(entry) == rule


@pytest.mark.parametrize(
    "entry",
    [
        *("", "*", "*.example.com", "https://*.example.com", "10.0.0.1", "http://127.1", "[::1]"),
        *("mirror.example/path", "ftp://mirror.example", "user@mirror.example", "localhost"),
        *("mirror.example:0", "mirror.example:65536", "mirror.example:", "a b.example", "ex_a.com"),
    ],
)
def test_what_is_no_exact_host_is_refused_with_a_sentence(entry):
    with pytest.raises(ValueError, match=r"is not a host|cannot be allowed"):
        to_host_rule(entry)


def test_rules_of_one_host_become_one_and_denied_hosts_go():
    rules = [to_host_rule(e) for e in ("a.example", "http://a.example", "b.example", "a.example:1")]
    assert to_merged(rules, ["B.example."]) == (HostRule("a.example", frozenset({1, 443}), P),)


@pytest.mark.parametrize("text", ["10.1.0.0/16", "127.0.0.1/32", "fd12::/32", "10.0.0.0/8"])
def test_a_network_is_read(text):
    assert require_network(text) == text


@pytest.mark.parametrize("text", ["", "10.1.0.1/16", "10.0.0.0/7", "0.0.0.0/0", "::/0", "mirror"])
def test_what_is_no_network_or_too_wide_is_refused(text):
    with pytest.raises(ValueError, match=r"not a network|too wide"):
        require_network(text)


@pytest.mark.parametrize("url", ["", "http://proxy:3128", "http://u:p%40ss@proxy.example:80/"])
def test_the_sites_proxy_is_read(url):
    assert require_upstream(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("proxy:3128", "https://proxy:3128", "http://proxy", "socks5://proxy:1080"),
        *("http://secret:word@proxy:3128/path", "http://proxy:99999", "http://pro\nxy:1"),
    ],
)
def test_another_kind_of_proxy_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="it must be http://") as refused:
        require_upstream(url)
    assert "word" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("presets", ["pypi", "conda"]),
        ("allow_hosts", ["*.example.com"]),
        ("deny_hosts", ["10.0.0.1"]),
        ("allow_cidrs", ["0.0.0.0/0"]),
        ("deny_cidrs", ["nonsense"]),
        ("upstream_proxy", "proxy:3128"),
        ("connections", 0),
        ("up_bytes", -1),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(trait, value):
    with pytest.raises(TraitError, match=f"SandboxEgress.{trait}"):
        SandboxEgress(config=Config({"SandboxEgress": {trait: value}}))


def test_settings_become_rules_that_survive_the_pipe():
    settings = SandboxEgress(
        allow_hosts=["mirror.example:8443"],
        allow_cidrs=["10.1.0.0/16"],
        deny_hosts=["github.com"],
        upstream_proxy="http://u:secret@proxy:3128",
        up_bytes=7,
    )
    rules = settings.to_rules(listed_rules("github"))
    assert EgressRules.from_json(rules.to_json()) == rules
    assert "secret" not in repr(rules)
    assert rules.caps.up_bytes == 7
    assert rules.hosts[0].host == "mirror.example"
    assert "github.com" not in {rule.host for rule in rules.hosts}


def test_the_defaults_of_the_settings_are_the_defaults_of_the_rules():
    assert SandboxEgress().to_rules(()).caps == EgressCaps()


def test_no_preset_has_a_host_that_takes_content_in():
    hosts = {rule.host for preset in PRESETS for rule in listed_rules(preset)}
    assert hosts
    assert not [h for h in hosts if re.match(r"(api|gist|uploads?|storage|test)\.", h)]
    assert all(not listed_rules(preset) for preset in FROM_CLIENTS)


# The clients' own configuration

CLASSIC = """# comment
deb http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://user:word@other.example:8443/d/ ./
deb-src	http://source.example/debian bookworm main
#deb http://commented.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
"""
STANZAS = """Types: deb
URIs: http://one.example/debian
 https://two.example/debian
# a comment in between
Suites: bookworm

Types: deb
Enabled: no
URIs: http://off.example/debian

Enabled: yes
uris:   http://three.example/debian
"""


def test_apt_sources_are_read_in_both_formats(tmp_path):
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text(CLASSIC)
    (folder / "a.sources").write_text(STANZAS)
    (folder / "b.list.disabled").write_text("deb http://disabled.example/ x main")
    rules = [to_client_rule(url) for url in read_apt_sources(tmp_path)]
    assert [rule for rule in rules if rule is not None] == [
        HostRule("mirror.example", frozenset(), P),
        HostRule("other.example", frozenset({8443})),
        HostRule("source.example", frozenset(), P),
        HostRule("one.example", frozenset(), P),
        HostRule("two.example", S),
        HostRule("three.example", frozenset(), P),
    ]


def test_a_clients_address_is_refused_and_its_password_not_shown():
    with pytest.raises(ValueError, match="cannot be allowed") as refused:
        to_client_rule("https://user:word@10.0.0.5/simple")
    assert "word" not in str(refused.value)
    assert to_client_rule("file:///opt/wheels") is None


def test_pip_settings_are_read_as_pip_does():
    listing = (
        "global.index-url='https://a.example/simple'\n"
        "install.extra-index-url='https://b.example/simple\\nhttps://c.example'\n"
        ":env:.index-url='https://env.example/simple'\n"
        "broken line\nglobal.timeout=60\n"
    )
    settings = client_hosts.to_pip_settings(listing)
    assert settings["index-url"] == "https://env.example/simple"
    assert settings["extra-index-url"].split() == ["https://b.example/simple", "https://c.example"]


async def test_mirrors_of_this_hosts_clients_are_found(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:word@pip.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///opt/x http://plain.example:8080/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/opt/wheels")
    monkeypatch.setenv("npm_config_registry", "https://npm.example:4873/")
    rules = await find_preset_rules(["pypi", "npm"], logging.getLogger())
    assert rules == [
        HostRule("pip.example", S),
        HostRule("plain.example", frozenset(), frozenset({8080})),
        HostRule("npm.example", frozenset({4873})),
    ]


async def test_clients_without_settings_name_their_own_defaults(monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    pip = await find_preset_rules(["pypi"], logging.getLogger())
    assert len(pip) == 2  # the index and the host of its files
    assert all(rule.tunnel_ports == S and not rule.fetch_ports for rule in pip)


async def test_a_missing_client_costs_its_preset_and_a_line(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(client_hosts, "_APT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    rules = await find_preset_rules(["npm", "debian", "go"], logging.getLogger())
    assert rules == list(listed_rules("go"))
    assert "`npm` is empty" in caplog.text
    assert "`debian` is empty" in caplog.text


async def test_a_client_that_says_nothing_is_not_waited_for(monkeypatch, tmp_path):
    slow = Path(tmp_path, "npm")
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(client_hosts, "_CLIENT_SECONDS", 0.2)
    with pytest.raises(client_hosts.ClientMissing, match="does not answer"):
        await client_hosts.npm_urls()


def test_sandboxes_get_the_index_that_pip_is_set_to_and_no_password(caplog):
    settings = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://user:secret@mirror.example/more file:///srv/more "
        "https://mirror.example/third",
        "trusted-host": "mirror.example",
        "find-links": "/srv/wheels",
    }
    assert client_hosts.pip_variables(settings, logging.getLogger()) == {
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://mirror.example/third",
        "PIP_TRUSTED_HOST": "mirror.example",
    }
    assert "there is a password in it" in caplog.text
    assert "secret" not in caplog.text


async def test_an_index_that_is_pips_default_overrules_no_image(monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert await client_hosts.find_mirrors(["pypi"], logging.getLogger()) == {}


async def test_mirrors_are_those_of_the_presets_that_are_used(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://mirror.example/npm/")
    clients = client_hosts.ClientSettings()
    log = logging.getLogger()
    both = await client_hosts.find_mirrors(["pypi", "npm"], log, clients)
    assert both["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert both["NPM_CONFIG_REGISTRY"] == "https://mirror.example/npm/"
    assert "PIP_INDEX_URL" not in await client_hosts.find_mirrors(["npm"], log, clients)
    assert await client_hosts.find_mirrors(["go"], log, clients) == {}
