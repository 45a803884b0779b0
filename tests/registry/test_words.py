"""What needs no registry: challenges, proxies, waiting."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chlaunch.errors import RegistryError
from chlaunch.image import challenge
from chlaunch.image.origin import Origin, may_refer, origin_of, proxy_of
from chlaunch.image.retry import Patience, seconds_of
from chlaunch.image.trust import printable


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a.example/t?x=1,2",service="s",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a.example/t?x=1,2",
                        "service": "s",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'Negotiate, Basic realm="a \\"b\\", c", BEARER Realm=plain , service = "s"',
            [
                ("negotiate", {}),
                ("basic", {"realm": 'a "b", c'}),
                ("bearer", {"realm": "plain", "service": "s"}),
            ],
        ),
        ("Negotiate YWJj==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="unfinished', [("bearer", {})]),
        ("", []),
        ('="x"', []),
        ('realm="x"', []),
    ],
)
def test_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, one.parameters) for one in challenge.parse(header)] == found


@given(st.text(alphabet='aB=", \\\t~/:é', max_size=60))
def test_any_challenge_is_read(header: str) -> None:
    for one in challenge.parse(header):
        assert one.scheme == one.scheme.lower()


HTTPS = "https://registry.example.com"


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, HTTPS, ""),
        ({"HTTPS_PROXY": "http://p:1"}, HTTPS, "http://p:1"),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, HTTPS, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, HTTPS, ""),
        ({"ALL_PROXY": "p:1"}, HTTPS, "http://p:1"),
        ({"ALL_PROXY": "p:1"}, "https://localhost:5000", ""),
        ({"ALL_PROXY": "p:1"}, "https://127.0.0.1", ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "*"}, HTTPS, ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "a.b, example.com"}, HTTPS, ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": ".EXAMPLE.com"}, HTTPS, ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "*.example.com"}, HTTPS, ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "registry.example.com:443"}, HTTPS, ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "registry.example.com:5000"}, HTTPS, "http://p:1"),
        ({"ALL_PROXY": "p:1", "no_proxy": "ample.com,,"}, HTTPS, "http://p:1"),
        ({"ALL_PROXY": "p:1", "no_proxy": "10.0.0.0/8"}, "https://10.1.2.3", ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "10.0.0.0/8"}, "https://11.1.2.3", "http://p:1"),
        ({"ALL_PROXY": "p:1", "no_proxy": "[fd00::1]:443,fd00::/16"}, "https://[fd00::2]", ""),
    ],
)
def test_proxies(variables: dict[str, str], url: str, proxy: str) -> None:
    assert proxy_of(origin_of(url, "test"), variables) == proxy


@given(st.text(max_size=40))
def test_any_url_is_refused_or_known(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            origin = origin_of(url, "test")
        except RegistryError:
            continue
        assert origin_of(f"{origin}/", "test") == origin


@pytest.mark.parametrize(
    ("source", "target", "insecure", "may"),
    [
        ("https://a", "https://b", False, True),
        ("https://a", "http://b", False, False),
        ("https://a", "http://a", True, False),
        ("https://a", "http://localhost", False, False),
        ("http://localhost", "http://localhost:1", False, True),
        ("http://localhost", "http://b", False, False),
        ("http://localhost", "http://b", True, True),
        ("http://localhost", "https://b", False, True),
    ],
)
def test_who_may_send_us_where(source: str, target: str, *, insecure: bool, may: bool) -> None:
    assert may_refer(origin_of(source, "test"), origin_of(target, "test"), insecure=insecure) is may


def test_ports() -> None:
    assert origin_of("HTTPS://A.example:443/x", "test") == Origin("https", "a.example", 443)
    assert str(Origin("http", "::1", 5000)) == "http://[::1]:5000"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("9" * 400, 999_999_999),
        ("\u0663", None),
    ],
)
def test_how_long_to_wait(said: str, seconds: float | None) -> None:
    assert seconds_of(said, 1000) == seconds


def test_until_when_to_wait() -> None:
    assert seconds_of(email.utils.formatdate(1090, usegmt=True), 1000) == 90
    assert seconds_of(email.utils.formatdate(910, usegmt=True), 1000) == 0


def test_pauses_grow_and_end() -> None:
    patience = Patience(first=1, most=60)
    for number in range(1, 12):
        longest = min(2.0 ** (number - 1), 60)
        assert longest / 2 <= patience.pause(number, None) <= longest
    assert patience.pause(1, 30) == 30
    assert patience.pause(1, 86400) == 60


@given(st.text(max_size=2000))
def test_a_strangers_text_is_fit_for_a_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 301
