"""Token servers that give nonsense, or are somewhere where nothing is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults import FaultProxy, Rule
from registries import USERS

from chlaunch.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chlaunch.image.registry import Registry

ALICE = {"CH_IMAGE_USERNAME": "alice", "CH_IMAGE_PASSWORD": USERS["alice"]}


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("http://localhost:1/token", "passwords should go to http://localhost:1, where anybody"),
        ("ftp://localhost/", "not the URL of a server"),
        ("nonsense", "not the URL of a server"),
    ],
)
def test_a_realm_to_which_nothing_is_told(
    proxy: FaultProxy, connect: Callable[..., Registry], realm: str, words: str
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    proxy.rules = [Rule(method, times=9, status=401, headers=challenge) for method in ("GET", "HEAD")]
    with pytest.raises(RegistryError, match=words):
        connect(f"{proxy.host}/a/b:1", ALICE, authenticate=True).manifest()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": "a\\r\\nb"}', b'{"token": 7}', b'{"token": ""}']
)
def test_a_token_that_is_none(proxy: FaultProxy, connect: Callable[..., Registry], body: bytes) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="https://{proxy.host}/token"'}
    proxy.rules = [
        Rule(path="/token", times=9, status=200, body=body),
        Rule(times=9, status=401, headers=challenge),
    ]
    with pytest.raises(RegistryError, match="not a token"):
        connect(f"{proxy.host}/a/b:1").manifest()


@pytest.mark.parametrize("life", ["0", "-5", "1e999", "NaN", "9" * 400, "null", "0.5", "true"])
def test_a_token_with_a_strange_life(proxy: FaultProxy, connect: Callable[..., Registry], life: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="https://{proxy.host}/token"'}
    token = f'{{"token": "abc", "expires_in": {life}}}'.encode()
    proxy.rules = [
        Rule(path="/token", times=9, status=200, body=token),
        Rule(path="/manifests", status=401, headers=challenge),
        Rule(path="/manifests", status=200, body=b"{}"),
    ]
    assert connect(f"{proxy.host}/a/b:1").manifest()[0] == b"{}"


def test_a_token_server_that_has_trouble(proxy: FaultProxy, connect: Callable[..., Registry]) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="https://{proxy.host}/token"'}
    proxy.rules = [
        Rule(path="/token", status=503),
        Rule(path="/token", status=200, body=b'{"access_token": "abc"}'),
        Rule(path="/manifests", status=401, headers=challenge),
        Rule(path="/manifests", status=200, body=b"{}"),
    ]
    assert connect(f"{proxy.host}/a/b:1").manifest() == (b"{}", "")
    assert proxy.asked[-1].headers["Authorization"] == "Bearer abc"
