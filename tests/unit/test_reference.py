"""References to images: what is one, what it leaves out, and what is said of what is none."""

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chlaunch.errors import UsageError
from chlaunch.image.reference import Reference, is_remote, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4

LOWER = string.ascii_lowercase + string.digits
COMPONENTS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)
# In front of a slash a component with a dot, and "localhost", would be a host.
FIRST = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True).filter(lambda text: text != "localhost")
HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9]{1,5}\.[a-z0-9]{1,5}", fullmatch=True),
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "[2001:db8::7]"]),
)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    """Make a reference in which anything may be left out."""
    host = draw(st.one_of(st.just(""), HOSTS))
    port = draw(st.one_of(st.none(), st.integers(1, 65535))) if host else None
    path = tuple(draw(st.lists(COMPONENTS, max_size=3)))
    if path and not host:
        path = (draw(FIRST), *path[1:])
    return Reference(
        host,
        port,
        path,
        draw(COMPONENTS),
        draw(st.one_of(st.just(""), TAGS)),
        draw(st.sampled_from(["", DIGEST])),
    )


@given(references())
def test_there_and_back(reference: Reference) -> None:
    assert parse(str(reference)) == reference
    assert parse(f"docker://{reference}") == reference


@given(references())
def test_as_the_name_of_a_file(reference: Reference) -> None:
    assert "/" not in reference.file_name
    assert ":" not in reference.file_name
    assert parse(reference.file_name) == reference


@given(references())
def test_complete(reference: Reference) -> None:
    full = reference.complete({})
    assert full.host
    assert full.port
    assert full.version
    assert full.complete({}) == full
    assert parse(str(full)) == full


@given(st.text(max_size=60))
def test_any_text_is_one_or_is_refused(text: str) -> None:
    with suppress(UsageError):  # nothing else may come
        reference = parse(text)
        assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("hello-world", "registry-1.docker.io:443/library/hello-world:latest"),
        ("alpine:3.18", "registry-1.docker.io:443/library/alpine:3.18"),
        ("a/b", "registry-1.docker.io:443/a/b:latest"),
        ("docker.io/alpine", "registry-1.docker.io:443/library/alpine:latest"),
        ("index.docker.io/library/alpine", "registry-1.docker.io:443/library/alpine:latest"),
        ("example.com/alpine", "example.com:443/alpine:latest"),
        ("example.com:5000/a/b/c:1", "example.com:5000/a/b/c:1"),
        ("host:5000/alpine", "host:5000/alpine:latest"),
        ("localhost/alpine", "localhost:443/alpine:latest"),
        ("[::1]:5000/alpine", "[::1]:5000/alpine:latest"),
        (f"alpine@{DIGEST}", f"registry-1.docker.io:443/library/alpine@{DIGEST}"),
        (f"alpine:3@{DIGEST}", f"registry-1.docker.io:443/library/alpine:3@{DIGEST}"),
        ("docker://ghcr.io/x/y:tag", "ghcr.io:443/x/y:tag"),
        ("example.com+5000%a%b+1", "example.com:5000/a/b:1"),
    ],
)
def test_defaults(text: str, full: str) -> None:
    assert str(parse(text).complete({})) == full


def test_other_defaults() -> None:
    environment = {
        "CH_REGY_DEFAULT_HOST": "example.com",
        "CH_REGY_DEFAULT_PORT": "5000",
        "CH_REGY_PATH_PREFIX": "/mirror/hub/",
    }
    assert str(parse("alpine").complete(environment)) == "example.com:5000/mirror/hub/alpine:latest"
    assert str(parse("ghcr.io/x").complete(environment)) == "ghcr.io:443/x:latest"


@pytest.mark.parametrize(
    "environment",
    [
        {"CH_REGY_DEFAULT_HOST": "https://example.com"},
        {"CH_REGY_DEFAULT_PORT": "http"},
        {"CH_REGY_DEFAULT_PORT": "0"},
        {"CH_REGY_DEFAULT_PORT": "65536"},
        {"CH_REGY_PATH_PREFIX": "A B"},
    ],
)
def test_wrong_defaults(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(environment))):
        parse("alpine").complete(environment)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "at end"),
        ("/alpine", "char 1"),
        ("alpine/", "at end"),
        ("Alpine", "char 1"),
        ("a/B", "char 3"),
        ("alpine:", "at end"),
        ("alpine:-1", "char 8"),
        ("alpine:1:2", "char 9"),
        ("alpine@", "at end"),
        ("alpine@sha256:12", "char 8"),
        ("alpine@sha512:" + "0" * 128, "char 8"),
        (f"alpine@{DIGEST}0", "char 79"),
        ("host:/alpine", "char 6"),
        ("host:99999/alpine", "char 11"),
        ("host:0/alpine", "char 7"),
        ("-host.x/alpine", "char 1"),
        ("[::1/alpine", "char 1"),
        ("[::1]x/alpine", "char 6"),
        ("alpine:1 ", "char 9"),
        ("al\npine", "char 3"),
        ("ä", "char 1"),
    ],
)
def test_what_is_none(text: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.message.startswith(f"image ref syntax, {where}: ")
    assert "\n" not in caught.value.message


def test_the_caret_is_below_the_character() -> None:
    with pytest.raises(UsageError) as caught:
        parse("example.com/a/B")
    _why, text, caret = caught.value.hint.split("\n")
    assert text[caret.index("^")] == "B"


def test_what_is_fetched() -> None:
    assert is_remote("ghcr.io/x/y")
    assert is_remote("localhost:5000/x")
    assert is_remote("docker://alpine")
    assert not is_remote("alpine")
    assert not is_remote("a/b:1")
    assert not is_remote("./image.sqfs")
    assert not is_remote("/images/x.sqfs")
