"""What of a context is left out: Docker's examples, and any patterns against one that tries all ways."""

import re
import time
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chlaunch.errors import BuildError
from chlaunch.image.dockerfile import ignore


def left_out(patterns: str, *paths: str) -> list[str]:
    """Return which of the paths are left out."""
    found = ignore.parse(patterns.encode("utf-8", "surrogateescape"), ".dockerignore")
    return [path for path in paths if found.matches(path)]


@pytest.mark.parametrize(
    ("patterns", "out", "kept"),
    [
        ("# comment\n*/temp*\n", ["a/temp", "a/temporary.txt", "a/temp/b"], ["temp", "a/b/temp", "# comment"]),
        ("*/*/temp*", ["a/b/temp1"], ["a/temp"]),
        ("temp?", ["tempa", "tempb/c"], ["temp", "tempab"]),
        ("**/*.go", ["a.go", "a/b/c.go"], ["a.gob"]),
        ("*.md\n!README.md", ["a.md"], ["README.md", "docs/a.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["a.md"], ["README.md", "README-secret.md"]),
        ("/node_modules/", ["node_modules", "node_modules/a"], ["a/node_modules"]),
        ("./a/../b", ["b"], ["a"]),
        ("  a  \n\n\r\n b\r", ["a", "b"], []),
        ("*\n!src/**\n!go.mod", ["a", "src", "src.c"], ["src/a", "src/a/b", "go.mod"]),
        ("dir\n!dir/keep\ndir/keep/not", ["dir", "dir/a", "dir/keep/not"], ["dir/keep", "dir/keep/yes"]),
        ("foo/**", ["foo/a", "foo/a/b"], ["foo", "food/a"]),
        ("**", ["a", "a/b"], []),
        ("**/a/**/b", ["a/b", "x/a/y/z/b/c"], ["a", "ab", "x/b"]),
        ("**.log", ["a.log", "b/c.log"], ["a.logs"]),
        ("build**", ["build", "build-1/x"], ["x/build"]),
        ("[a-c]x[^y]", ["axz", "cxx"], ["dxz", "axy", "ax/"]),
        ("[\\]a]", ["]", "a"], ["b"]),
        ("\\*\n\\#a\n\\!b", ["*", "#a", "!b"], ["x", "a", "b"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)"]),
        ("../a\n/\n.", [], ["a", "b"]),
        ("\ufeffa", ["a"], []),
        ("caf\udce9", ["caf\udce9"], ["café"]),
    ],
)  # fmt: skip
def test_patterns(patterns: str, out: list[str], kept: list[str]) -> None:
    assert left_out(patterns, *out, *kept) == out


@pytest.mark.parametrize(
    "pattern", ["[", "[]", "[a", "[a-", "[b-a]", "a\\", "[^]", "!", "! ", "[a-\\", "x" * 5000]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BuildError, match=r"^\.dockerignore:2: "):
        left_out(f"fine\n{pattern}\n")
    with pytest.raises(BuildError, match=r"^--exclude: "):
        ignore.of_patterns([pattern])


def test_what_a_walk_must_know() -> None:
    assert not ignore.parse(b"a\n", "f").takes_back
    assert ignore.parse(b"a\n!a/b\n", "f").takes_back
    assert not ignore.Ignore().matches("a")
    assert ignore.names("d/Dockerfile.gpu") == ("d/Dockerfile.gpu.dockerignore", ".dockerignore")


COMPONENTS = st.one_of(
    st.just("**"), st.text("ab*?", min_size=1, max_size=4).filter(lambda text: "**" not in text)
)
PATTERNS = st.builds(
    "{}{}".format, st.sampled_from(["", "", "!"]), st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
)
PATHS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4)


@cache
def all_ways(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Say whether a pattern matches a whole path, trying every number of directories for a double star."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path)
        return all_ways(pattern[1:], path) or (bool(path) and all_ways(pattern, path[1:]))
    regular = pattern[0].replace("*", ".*").replace("?", ".")
    return bool(path) and re.fullmatch(regular, path[0]) is not None and all_ways(pattern[1:], path[1:])


@given(st.lists(PATTERNS, max_size=5), PATHS)
def test_any_patterns_match_as_trying_all_ways_would(patterns: list[str], path: list[str]) -> None:
    wanted = False
    for pattern in patterns:
        back = pattern.startswith("!")
        components = tuple(pattern.removeprefix("!").split("/"))
        if any(all_ways(components, tuple(path[:end])) for end in range(1, len(path) + 1)):
            wanted = not back
    assert ignore.of_patterns(patterns).matches("/".join(path)) == wanted


@given(st.binary(max_size=60), st.text("ab/[]*\\!^-", max_size=9))
def test_anything_is_read_or_refused(data: bytes, path: str) -> None:
    with suppress(BuildError):  # nothing else may come
        ignore.parse(data, "f").matches(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 60 + "b", "a" * 250),
        ("/".join(["**", "a"] * 30) + "/b", "a/" * 2000 + "c"),
        ("**/" + "*a" * 20 + "b", ("a" * 100 + "/") * 40 + "c"),
        ("?" * 250 + "b", "a" * 251),
    ],
)
def test_no_pattern_is_slow(pattern: str, path: str) -> None:
    started = time.process_time()
    assert not ignore.of_patterns([pattern]).matches(path)
    assert time.process_time() - started < 1
