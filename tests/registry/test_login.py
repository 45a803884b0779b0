"""ch-image login and logout: checked at the registry, kept so that nobody else can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from registries import USERS, RegistryServer

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image.auth import Policy
from chlaunch.image.login import login, logout, place
from chlaunch.image.reference import Reference, parse
from chlaunch.image.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokens import TokenServer

    from chlaunch.image.registry import Registry


@pytest.fixture
def policy(warnings: list[str]) -> Policy:
    """Return a policy that does not wait."""
    return Policy(warnings.append, Patience(tries=1))


def of(server: RegistryServer) -> Reference:
    """Return a reference to something in a registry."""
    return parse(f"{server.host}/some/thing").complete({})


def test_in_and_out(
    closed: RegistryServer, environment: dict[str, str], policy: Policy, connect: Callable[..., Registry]
) -> None:
    path = place(environment)
    assert path == Path(environment["HOME"]) / ".config/containers/auth.json"
    path.parent.mkdir(parents=True)
    others = {"auths": {"other.example": {"auth": "YTpi"}}, "credHelpers": {"third.example": "x"}, "new": [1]}
    path.write_text(json.dumps(others))
    assert login(of(closed), "bob", USERS["bob"], environment, policy) == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    kept = json.loads(path.read_text())
    assert list(kept["auths"]) == ["other.example", closed.host]
    registry = connect(f"{closed.host}/some/thing:1", authenticate=True)
    with pytest.raises(RegistryError, match="not found"):  # who asks may know that
        registry.manifest()
    assert logout(of(closed), environment, policy.warn) == path
    assert json.loads(path.read_text()) == others
    with pytest.raises(RegistryError, match="not logged in"):
        logout(of(closed), environment, policy.warn)


def test_a_new_directory_is_private(
    closed: RegistryServer, environment: dict[str, str], policy: Policy, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    environment["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    old = os.umask(0)
    try:
        path = login(of(closed), "bob", USERS["bob"], environment, policy)
    finally:
        os.umask(old)
    assert path == tmp_path / "run/containers/auth.json"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_the_registry_refuses_is_not_kept(
    closed: RegistryServer, plain: RegistryServer, environment: dict[str, str], policy: Policy
) -> None:
    with pytest.raises(RegistryError, match=r"authentication failed.*\(as bob, by what you said\)") as caught:
        login(of(closed), "bob", "not swordfish", environment, policy)
    assert "not swordfish" not in str(caught.value)
    assert "are name and password right" in caught.value.hint
    with pytest.raises(RegistryError, match="asks nobody who they are"):
        login(of(plain), "bob", USERS["bob"], environment, policy)
    assert not place(environment).exists()


@pytest.mark.parametrize(
    ("name", "password"), [("", "x"), ("a:b", "x"), ("a\n", "x"), ("a", ""), ("a", "x\ny")]
)
def test_what_can_not_be_sent(
    closed: RegistryServer, environment: dict[str, str], policy: Policy, name: str, password: str
) -> None:
    with pytest.raises(ConfigError, match="of a registry has"):
        login(of(closed), name, password, environment, policy)


def test_a_registry_with_tokens(
    guarded: RegistryServer, tokens: TokenServer, environment: dict[str, str], policy: Policy
) -> None:
    tokens.users = dict(USERS)
    with pytest.raises(RegistryError, match="incorrect password"):
        login(of(guarded), "bob", "wrong", environment, policy)
    assert login(of(guarded), "bob", USERS["bob"], environment, policy).exists()
    assert tokens.issued == [("bob", (), "GET")]


def test_links_and_what_others_may_write(
    closed: RegistryServer, environment: dict[str, str], policy: Policy, tmp_path: Path
) -> None:
    def attempt() -> None:
        login(of(closed), "bob", USERS["bob"], environment, policy)

    elsewhere = tmp_path / "elsewhere"
    path = tmp_path / "directory/auth.json"
    environment["REGISTRY_AUTH_FILE"] = str(path)
    path.parent.mkdir()
    path.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="a link, which is not followed"):
        attempt()
    path.unlink()
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write there"):
        attempt()
    path.parent.chmod(0o700)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="not a file"):
        attempt()
    path.unlink()
    if os.geteuid() == 0:
        path.write_text("{}")
        os.chown(path, 12345, 12345)
        with pytest.raises(ConfigError, match="belongs to somebody else"):
            attempt()
        path.unlink()
    path.parent.rmdir()
    elsewhere.mkdir()
    path.parent.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="can't write"):
        attempt()
    assert list(elsewhere.iterdir()) == []


def test_docker_hub_is_kept_as_podman_does() -> None:
    from chlaunch.image.credentials import keys_for  # noqa: PLC0415  for this only

    keys = keys_for(parse("alpine").complete({}))
    assert keys[:3] == ["docker.io/library/alpine", "docker.io/library", "docker.io"]
    assert keys[-1] == "https://index.docker.io/v1/"
