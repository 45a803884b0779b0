"""Saying who we are: names and passwords, tokens, where they come from, and to whom they are told."""

from __future__ import annotations

import base64
import json
import time
import traceback
from typing import TYPE_CHECKING

import pytest
from faults import FaultProxy, Rule
from hypothesis import given
from hypothesis import strategies as st
from pictures import Picture, picture
from registries import USERS, RegistryServer

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image import credentials
from chlaunch.image.reference import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from certificates import Pair
    from tokens import TokenServer

    from chlaunch.image.registry import Registry

ALICE = {"CH_IMAGE_USERNAME": "alice", "CH_IMAGE_PASSWORD": USERS["alice"]}
WRONG = {"CH_IMAGE_USERNAME": "alice", "CH_IMAGE_PASSWORD": "a wrong secret"}


def auth_file(path: Path, key: str, user: str = "alice", password: str = "", **more: object) -> Path:
    """Write a file of credentials as podman and Docker do."""
    pair = base64.b64encode(f"{user}:{password or USERS[user]}".encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {key: {"auth": pair}}, **more}))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def one() -> Picture:
    """Return an image."""
    return picture(80)


@pytest.fixture
def private(closed: RegistryServer, connect: Callable[..., Registry], one: Picture, tmp_path: Path) -> str:
    """Return an image that only users of the registry get."""
    text = f"{closed.host}/private/image:1"
    registry = connect(text, ALICE, authenticate=True)
    if not registry.has_blob(one.manifest.config):
        one.push(registry, tmp_path)
    return text


def test_nobody_gets_nothing(private: str, connect: Callable[..., Registry]) -> None:
    with pytest.raises(RegistryError, match="authentication failed: UNAUTHORIZED") as caught:
        connect(private).resolve()
    assert "ch-image login" in caught.value.hint


def test_the_environment_is_for_those_who_say_so(private: str, connect: Callable[..., Registry]) -> None:
    with pytest.raises(RegistryError, match="authentication failed"):
        connect(private, ALICE).resolve()
    assert connect(private, ALICE, authenticate=True).resolve()


def test_a_wrong_password_is_not_shown(
    private: str, connect: Callable[..., Registry], warnings: list[str]
) -> None:
    registry = connect(private, WRONG, authenticate=True)
    with pytest.raises(RegistryError, match=r"\(as alice, by \$CH_IMAGE_USERNAME\)") as caught:
        registry.resolve()
    encoded = base64.b64encode(b"alice:a wrong secret").decode()
    found = credentials.from_environment(WRONG)
    shown = [*traceback.format_exception(caught.value), caught.value.hint, repr(found), *warnings]
    assert found is not None
    assert found.basic == f"Basic {encoded}"
    assert not [text for text in shown if "a wrong secret" in text or encoded in text]


def test_half_a_user(private: str, connect: Callable[..., Registry]) -> None:
    with pytest.raises(ConfigError, match="only one of"):
        connect(private, {"CH_IMAGE_USERNAME": "alice"}, authenticate=True).resolve()


def test_a_person_is_asked_last(private: str, connect: Callable[..., Registry]) -> None:
    asked: list[str] = []

    def ask(registry: str) -> tuple[str, str]:
        asked.append(registry)
        return "bob", USERS["bob"]

    registry = connect(private, authenticate=True, ask=ask)
    assert registry.resolve() == registry.resolve()
    assert asked == [private.partition("/")[0]]
    with pytest.raises(RegistryError, match="nothing here knows") as caught:
        connect(private, authenticate=True).resolve()
    assert "CH_IMAGE_USERNAME" in caught.value.hint


PLACES = {
    "REGISTRY_AUTH_FILE": "anywhere/file",
    "XDG_RUNTIME_DIR": "run/containers/auth.json",
    "HOME": "home/.config/containers/auth.json",
    "XDG_CONFIG_HOME": "config/containers/auth.json",
    "DOCKER_CONFIG": "docker/config.json",
    "": "home/.docker/config.json",
}


@pytest.mark.parametrize("variable", PLACES, ids=lambda name: name or "HOME/.docker")
def test_files_are_read_without_being_asked_to(
    private: str, connect: Callable[..., Registry], tmp_path: Path, variable: str
) -> None:
    path = auth_file(tmp_path / PLACES[variable], private.partition("/")[0])
    named = {"REGISTRY_AUTH_FILE": path, "XDG_RUNTIME_DIR": path.parents[1], "DOCKER_CONFIG": path.parent}
    value = {**named, "XDG_CONFIG_HOME": path.parents[1]}.get(variable)
    assert connect(private, {variable: str(value)} if value else {}).resolve()


def test_the_most_specific_entry_counts(
    private: str, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    host = private.partition("/")[0]
    path = auth_file(tmp_path / "file", host, "alice", "wrong")
    said = json.loads(path.read_text())
    right = base64.b64encode(f"bob:{USERS['bob']}".encode()).decode()
    said["auths"][f"{host}/private"] = {"auth": right}
    said["auths"][f"{host}/private/other"] = {"auth": base64.b64encode(b"bob:wrong").decode()}
    path.write_text(json.dumps(said))
    assert connect(private, {"REGISTRY_AUTH_FILE": str(path)}).resolve()


def test_keys_may_be_urls(private: str, connect: Callable[..., Registry], tmp_path: Path) -> None:
    path = auth_file(tmp_path / "file", f"https://{private.partition('/')[0]}/v2/")
    assert connect(private, {"REGISTRY_AUTH_FILE": str(path)}).resolve()


@pytest.mark.parametrize("field", ["credHelpers", "credsStore"])
def test_a_helper_is_asked(
    private: str, connect: Callable[..., Registry], tmp_path: Path, field: str
) -> None:
    host = private.partition("/")[0]
    helper = tmp_path / "bin/docker-credential-tests"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": host, "Username": "alice", "Secret": USERS["alice"]})
    helper.write_text(
        f"#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = '{host}' ] || exit 1\necho '{answer}'\n"
    )
    helper.chmod(0o755)
    path = tmp_path / "file"
    path.write_text(json.dumps({field: {host: "tests"} if field == "credHelpers" else "tests"}))
    more = {"REGISTRY_AUTH_FILE": str(path), "PATH": f"{helper.parent}:/usr/bin:/bin"}
    assert connect(private, more).resolve()


@pytest.mark.parametrize("name", ["absent", "../../bin/sh", "a b", "-x"])
def test_a_helper_that_is_not_there(
    private: str, connect: Callable[..., Registry], tmp_path: Path, warnings: list[str], name: str
) -> None:
    path = tmp_path / "file"
    path.write_text(json.dumps({"credsStore": name}))
    with pytest.raises(RegistryError, match="authentication failed"):
        connect(private, {"REGISTRY_AUTH_FILE": str(path)}).resolve()
    assert any("is not installed" in warning for warning in warnings)


def test_a_helper_that_says_nonsense(private: str, connect: Callable[..., Registry], tmp_path: Path) -> None:
    helper = tmp_path / "bin/docker-credential-tests"
    helper.parent.mkdir()
    helper.write_text("#!/bin/sh\necho my secret\n")
    helper.chmod(0o755)
    path = tmp_path / "file"
    path.write_text(json.dumps({"credsStore": "tests"}))
    with pytest.raises(RegistryError, match="makes no sense") as caught:
        connect(private, {"REGISTRY_AUTH_FILE": str(path), "PATH": str(helper.parent)}).resolve()
    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"auths": {"HOST": {"auth": "###"}}}', "not base64"),
        ("[" * 100_000, "not a JSON object"),
        (" " * (2 << 20), "not a JSON object"),
    ],
    ids=["cut", "array", "no base64", "deep", "large"],
)
def test_a_broken_file(
    private: str, connect: Callable[..., Registry], tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "file"
    path.write_text(text.replace("HOST", private.partition("/")[0]))
    with pytest.raises(ConfigError, match=words):
        connect(private, {"REGISTRY_AUTH_FILE": str(path)}).resolve()


def test_a_file_that_others_may_read(
    private: str, connect: Callable[..., Registry], tmp_path: Path, warnings: list[str]
) -> None:
    path = auth_file(tmp_path / "file", private.partition("/")[0])
    path.chmod(0o644)
    assert connect(private, {"REGISTRY_AUTH_FILE": str(path)}).resolve()
    assert warnings == [f"{path}: others may read the passwords in it: chmod 600 {path}"]


def test_a_password_never_leaves_the_registry(
    closed: RegistryServer, connect: Callable[..., Registry], pair: Pair, one: Picture, tmp_path: Path
) -> None:
    with FaultProxy(closed.port, pair) as proxy, FaultProxy(closed.port, pair, "127.0.0.1") as other:
        raw = one.blobs[one.layer.digest]
        other.rules = [Rule(path="/elsewhere", status=200, body=raw)]
        challenge = {"WWW-Authenticate": 'Basic realm="tests"'}
        there = {"Location": f"https://{other.host}/elsewhere"}
        proxy.rules = [
            Rule(path="/blobs/", status=401, headers=challenge),
            Rule(path="/blobs/", status=307, headers=there),
        ]
        registry = connect(f"{proxy.host}/private/image:1", ALICE, authenticate=True)
        registry.download(one.layer, tmp_path / "layer", lambda _: None)
    assert [("Authorization" in asked.headers) for asked in proxy.paths("GET", "/blobs/")] == [False, True]
    assert [("Authorization" in asked.headers) for asked in other.asked] == [False]


def test_a_url_for_a_while_is_asked_for_again(
    proxy: FaultProxy, connect: Callable[..., Registry], pair: Pair, one: Picture, tmp_path: Path
) -> None:
    with FaultProxy(proxy.upstream, pair, "127.0.0.1") as other:
        other.rules = [
            Rule(path="/elsewhere", status=403),
            Rule(path="/elsewhere", status=200, body=one.blobs[one.layer.digest]),
        ]
        there = {"Location": f"https://{other.host}/elsewhere?signature=secret"}
        proxy.rules = [Rule(path="/blobs/", status=307, times=2, headers=there)]
        connect(f"{proxy.host}/a/b:1").download(one.layer, tmp_path / "layer", lambda _: None)


@pytest.fixture
def public(
    guarded: RegistryServer,
    tokens: TokenServer,
    connect: Callable[..., Registry],
    one: Picture,
    tmp_path: Path,
) -> str:
    """Return an image that anybody gets by a token."""
    tokens.users = dict(USERS)
    text = f"{guarded.host}/public/image:1"
    registry = connect(text, ALICE, authenticate=True)
    if not registry.has_blob(one.manifest.config):
        one.push(registry, tmp_path)
    tokens.forget()
    tokens.users = dict(USERS)
    tokens.public = {"public/image"}
    return text


def test_nobody_needs_a_token_too(
    public: str, tokens: TokenServer, connect: Callable[..., Registry], one: Picture, tmp_path: Path
) -> None:
    registry = connect(public)
    assert registry.resolve()[0] == one.manifest.digest
    registry.download(one.layer, tmp_path / "layer", lambda _: None)
    assert [issued[:2] for issued in tokens.issued] == [("", ("repository:public/image:pull",))]


def test_who_is_known_is_tried_where_nobody_gets_nothing(
    public: str, tokens: TokenServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    tokens.public = set()
    path = auth_file(tmp_path / "file", public.partition("/")[0])
    assert connect(public, {"REGISTRY_AUTH_FILE": str(path)}).resolve()
    assert [issued.user for issued in tokens.issued] == ["", "alice"]
    tokens.issued.clear()
    assert connect(public, ALICE, authenticate=True).resolve()
    assert [issued.user for issued in tokens.issued] == ["alice"]
    with pytest.raises(RegistryError, match="authentication failed: UNAUTHORIZED"):
        connect(public).manifest()


def test_a_token_server_that_knows_better(
    public: str, connect: Callable[..., Registry], tokens: TokenServer
) -> None:
    with pytest.raises(RegistryError, match=r"incorrect password \(as alice, by"):
        connect(public, WRONG, authenticate=True).manifest()
    assert tokens.issued == []


def test_a_token_that_ends_midway(public: str, tokens: TokenServer, connect: Callable[..., Registry]) -> None:
    tokens.lifetime = -58  # to which the registry adds a minute
    registry = connect(public)
    deadline = time.monotonic() + 10
    while len(tokens.issued) < 2:
        assert registry.manifest()[0]
        assert time.monotonic() < deadline
    assert {issued.user for issued in tokens.issued} == {""}


def test_a_token_that_is_over_at_once(
    public: str, tokens: TokenServer, connect: Callable[..., Registry]
) -> None:
    tokens.lifetime = -600
    with pytest.raises(RegistryError, match="authentication failed"):
        connect(public).manifest()
    assert len(tokens.issued) <= 3


def test_an_identity_token(
    public: str, tokens: TokenServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    tokens.public = set()
    tokens.identities = {"an identity": "bob"}
    path = tmp_path / "file"
    path.write_text(json.dumps({"auths": {public.partition("/")[0]: {"identitytoken": "an identity"}}}))
    path.chmod(0o600)
    assert connect(public, {"REGISTRY_AUTH_FILE": str(path)}).resolve()
    assert [issued[::2] for issued in tokens.issued] == [("", "GET"), ("bob", "POST")]


def test_a_mount_asks_for_both_repositories(
    public: str, tokens: TokenServer, connect: Callable[..., Registry], one: Picture
) -> None:
    other = connect(public.replace("public/image", "public/other"), ALICE, authenticate=True)
    assert other.mount(one.layer, "public/image")
    wanted = ("repository:public/other:pull,push", "repository:public/image:pull")
    assert tokens.issued[-1].scopes == wanted


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["auths", "credHelpers", "credsStore", "auth", "identitytoken", "r.example"]),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, said: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(said))
    path.chmod(0o600)
    where = parse("r.example/a/b").complete({})
    try:
        found = credentials.find(where, {"REGISTRY_AUTH_FILE": str(path), "PATH": "/nowhere"}, lambda _: None)
    except ConfigError:
        return
    assert found is None or found.source == str(path)
