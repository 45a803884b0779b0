"""Words with variables: as the shells have them where they have them, and within bounds where they are hostile."""

import re
import subprocess
import time
from collections.abc import Mapping

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chlaunch.image.dockerfile import globs, grammar, variables
from chlaunch.image.dockerfile.grammar import UnreadableError
from chlaunch.image.dockerfile.tables import TABLES

VALUES = st.text(alphabet="ab./*? ", max_size=8)
SET = st.fixed_dictionaries({"x": VALUES, "y": VALUES})
NAMES = st.sampled_from(["x", "y", "unset"])

PLAIN = st.text(alphabet="abc./-_,", min_size=1, max_size=4)
ESCAPED = st.sampled_from([r"\$", r"\"", r"\'", r"\\", r"\a", r"\ "])
SINGLE = st.text(alphabet='ab $"\\{}*', max_size=4).map(lambda text: f"'{text}'")
PATTERNS = st.lists(
    st.sampled_from(["a", "b", ".", "/", "*", "?", r"\*", r"\?", "'*'", '"?"', "$y"]), max_size=4
).map("".join)
BARE_PATTERNS = st.lists(st.sampled_from(["a", "b", ".", "*", "?"]), max_size=4).map("".join)


def references(argument: st.SearchStrategy[str], patterns: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Make a variable in one of the forms that sh has."""
    return st.one_of(
        NAMES.map("${{{}}}".format),
        st.builds("${{{}{}{}}}".format, NAMES, st.sampled_from([":-", "-", ":+", "+"]), argument),
        st.builds("${{{}{}{}}}".format, NAMES, st.sampled_from(["#", "##", "%", "%%"]), patterns),
    )


# Within double quotes and braces together, shells differ among themselves on quotes, and BuildKit from all.
DOUBLE = st.lists(
    st.one_of(PLAIN, st.sampled_from([r"\$", r"\"", r"\\", "'", " "]), references(PLAIN, BARE_PATTERNS)),
    max_size=3,
).map(lambda parts: f'"{"".join(parts)}"')
WORDS = st.recursive(
    st.lists(st.one_of(PLAIN, ESCAPED, SINGLE, DOUBLE), max_size=3).map("".join),
    lambda inner: st.lists(st.one_of(PLAIN, references(inner, PATTERNS)), max_size=3).map("".join),
    max_leaves=6,
)


def shell(program: str, script: str, values: Mapping[str, str]) -> str:
    """Return what a shell prints, its variables being values and no others."""
    done = subprocess.run(
        [program, "-c", f"set -f\n{script}"], env=values, capture_output=True, text=True, check=True
    )
    return done.stdout


def value(word: str, values: Mapping[str, str]) -> str:
    """Return the value of a word."""
    return variables.value(variables.template(word, "\\"), values.get)


@settings(deadline=None)  # each starts a shell
@given(WORDS, SET)
def test_a_word_is_what_it_is_to_sh(word: str, values: dict[str, str]) -> None:
    assert value(word, values) == shell("sh", f'word={word}\nprintf %s "$word"', values)


# As in BuildKit, quotes within braces join nothing.
SPLIT = st.lists(st.one_of(PLAIN, ESCAPED, SINGLE, DOUBLE, references(PLAIN, PATTERNS)), max_size=4).map(
    "".join
)


@settings(deadline=None)  # likewise
@given(SPLIT, SET)
def test_a_word_is_split_as_by_sh(word: str, values: dict[str, str]) -> None:
    split = variables.words(variables.template(word, "\\"), values.get)
    assert (
        split
        == shell("sh", f"for word in {word}; do printf '%s\\n' \"$word\"; done", values).split("\n")[:-1]
    )


@settings(deadline=None)  # likewise
@given(NAMES, BARE_PATTERNS.filter(bool), PLAIN, st.sampled_from(["/", "//"]), SET)
def test_replacing_is_what_it_is_to_bash(
    name: str, pattern: str, new: str, operator: str, values: dict[str, str]
) -> None:
    assume(values.get(name))  # BuildKit lets stars match in what is empty, bash(1) does not
    word = f"${{{name}{operator}{pattern}/{new}}}"
    assert value(word, values) == shell("bash", f'word={word}\nprintf %s "$word"', values)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("$x$y", "onetwo"),
        ("${x}y", "oney"),
        ("$xy", ""),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1$@", ""),
        ("${x:-${y:-${z}}}", "one"),
        ("${z:-${w:-$x}}", "one"),
        ("${x:+'$y'}", "$y"),
        ('${x:+"$y"}', "two"),
        ("${path##*/}", "c.tar.gz"),
        ("${path//\\//-}", "-a-b-c.tar.gz"),
        ("${path/\\/a/\\}}", "\\}/b/c.tar.gz"),
        ("${path/$star/x}", "/a/b/c.tar.gz"),
        ("${stars/$star/x}", "ax*"),
        ("${path/c*/$x}", "/a/b/one"),
        ("${empty:-d}${empty-d}", "d"),
        ("${x//}".replace("}", "/n}"), "one"),
        ("äö$x", "äöone"),
    ],
)
def test_forms(word: str, wanted: str) -> None:
    assert (
        value(
            word,
            {"x": "one", "y": "two", "empty": "", "path": "/a/b/c.tar.gz", "star": "\\*", "stars": "a**"},
        )
        == wanted
    )


@pytest.mark.parametrize(
    "word",
    ["${", "${x", "${}", "${:x}", "${x:}", "${x:=y}", "${x/a}", "${x!}", "'a", '"a', "${x:-'}", "${x,,}"],
)
def test_what_is_no_word(word: str) -> None:
    with pytest.raises(UnreadableError):
        variables.template(word, "\\")


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("${z:?}", "z: must not be unset"),
        ("${empty:?}", "empty: must not be empty"),
        ("${z?say $x}", "z: say one"),
    ],
)
def test_a_variable_that_must_be_set(word: str, why: str) -> None:
    with pytest.raises(variables.ValueRefusedError, match=re.escape(why)):
        value(word, {"x": "one", "empty": ""})
    assert value("${empty?}", {"empty": ""}) == ""


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("a\\ $x", "a\\ 1"), ("a`$x", "a$x"), ('"`"`$`a"', '"$`a'), ("C:\\dir\\", "C:\\dir\\")],
)
def test_the_other_escape_character(word: str, wanted: str) -> None:
    assert variables.value(variables.template(word, "`"), {"x": "1"}.get) == wanted


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('it\'s "$x"\n', 'it\'s "1"\n'),
        ("\\$x \\\\ \\n\n", "$x \\ n\n"),
        ("${x:+'a' \"b\"}\n", "'a' \"b\"\n"),
        ("${x/1/'}'}\n", "''}\n"),
    ],
)
def test_the_body_of_a_heredoc(body: str, wanted: str) -> None:
    assert variables.value(variables.template(body, "`", body=True), {"x": "1"}.get) == wanted


def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> str:
        return "${x:-" * depth + "end" + "}" * depth

    assert value(nested(variables.NESTING_MOST - 1), {}) == "end"
    with pytest.raises(variables.ValueRefusedError, match="nested"):
        variables.template(nested(variables.NESTING_MOST + 1), "\\")
    with pytest.raises(variables.ValueRefusedError, match="nested"):
        variables.template(nested(10_000), "\\")


@pytest.mark.parametrize("word", ["$x$x", '"$x$x"', "${z:-$x$x}", "${x//a/bb}", "${x/a/$x$x}"])
def test_values_are_bounded(word: str) -> None:
    big = "a" * (variables.VALUE_MOST * 3 // 4)
    with pytest.raises(variables.ValueRefusedError, match="longer than"):
        value(word, {"x": big})


@pytest.mark.parametrize(
    "word", ["${x##*a*a*a*a*a*b}", "${x//*a*a*a*a*a*b/c}", "${x%%b*a*a*a*a*a*}", "${x//a?a?b/c}"]
)
def test_no_pattern_is_slow(word: str) -> None:
    started = time.process_time()
    assert value(word, {"x": "a" * 200_000}) == "a" * 200_000
    assert time.process_time() - started < 2


TOKENS = {"*": ".*", "?": ".", "a": "a", "b": "b"}


@given(st.text(alphabet="ab*?", max_size=5), st.text(alphabet="ab", max_size=9))
def test_globs_match_as_trying_all_would(pattern: str, text: str) -> None:
    regular = re.compile("".join(TOKENS[character] for character in pattern), re.DOTALL)
    ends = [end for end in range(len(text) + 1) if regular.fullmatch(text, 0, end)]
    starts = [start for start in range(len(text) + 1) if regular.fullmatch(text, start)]
    blocks = globs.blocks_of([(pattern, False)])
    assert globs.trimmed_start(blocks, text, longest=True) == text[max(ends, default=0) :]
    assert globs.trimmed_start(blocks, text, longest=False) == text[min(ends, default=0) :]
    assert globs.trimmed_end(blocks, text, longest=True) == text[: min(starts, default=len(text))]
    assert globs.trimmed_end(blocks, text, longest=False) == text[: max(starts, default=len(text))]


def test_tables_are_of_these_grammars() -> None:
    """Fails after a change of grammar.py, and with another release of lark: make docs."""
    templates = [grammar.template_grammar("\\", places) for places in (grammar.PLACES, grammar.BODY_PLACES)]
    rows = [grammar.pieces_grammar("\\"), *((text, ("text",)) for text in templates)]
    assert {grammar.digest(*row) for row in rows} == set(TABLES)
