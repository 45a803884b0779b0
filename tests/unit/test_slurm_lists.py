"""Host lists and counts, for any input: what they stand for, there and back, and an end to everything."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chlaunch.errors import SlurmError
from chlaunch.slurm import lists

settings.register_profile("chlaunch", deadline=None, database=None, max_examples=150)
settings.load_profile("chlaunch")

STEMS = st.text("abcxyz-._0123456789", max_size=4)
RANGES = st.tuples(st.integers(0, 120), st.integers(0, 12), st.integers(1, 4)).map(
    lambda found: (found[0], found[0] + found[1], found[2])
)
BRACKETS = st.lists(RANGES, min_size=1, max_size=3)
NAMES = st.text(
    st.characters(blacklist_characters=",[]", blacklist_categories=("Z", "C")), min_size=1, max_size=9
)


def written(ranges: list[tuple[int, int, int]]) -> str:
    """Return a bracket with ranges: first, last, digits."""
    items = (
        f"{first:0{width}}" if first == last else f"{first:0{width}}-{last}" for first, last, width in ranges
    )
    return f"[{','.join(items)}]"


def meant(ranges: list[tuple[int, int, int]]) -> list[str]:
    """Return what such a bracket stands for."""
    return [f"{number:0{width}}" for first, last, width in ranges for number in range(first, last + 1)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n[1-3,07],login", "n1 n2 n3 n07 login"),
        ("r[1-2]n[01-04]", "r1n01 r1n02 r1n03 r1n04 r2n01 r2n02 r2n03 r2n04"),
        ("n[9-011]", "n9 n10 n11"),
        ("n[08-10]-ib", "n08-ib n09-ib n10-ib"),
        ("a,,b,", "a b"),
        ("  n1\n", "n1"),
        ("", ""),
    ],
)
def test_hosts(text: str, names: str) -> None:
    assert lists.hosts(text) == tuple(names.split())


@given(st.lists(st.tuples(STEMS, BRACKETS, STEMS, st.none() | BRACKETS), max_size=4))
def test_what_is_written_is_what_is_meant(
    words: list[tuple[str, list[tuple[int, int, int]], str, list[tuple[int, int, int]] | None]],
) -> None:
    text = ",".join(f"{a}{written(b)}{c}{written(d) if d else ''}" for a, b, c, d in words)
    expected = [
        f"{a}{left}{c}{right}"
        for a, b, c, d in words
        for left, right in itertools.product(meant(b), meant(d) if d else [""])
    ]
    assert lists.hosts(text) == tuple(expected)


@given(st.lists(NAMES, max_size=20))
def test_there_and_back(names: list[str]) -> None:
    assert lists.hosts(lists.host_list(names)) == tuple(names)


@given(STEMS, st.lists(st.integers(0, 300), max_size=40), st.integers(1, 4))
def test_there_and_back_with_numbers(stem: str, numbers: list[int], width: int) -> None:
    names = [f"{stem}n{number:0{width}}" for number in numbers]
    text = lists.host_list(names)
    assert lists.hosts(text) == tuple(names)
    assert len(text) <= len(",".join(names)) + 2


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("n1 n2 n3 n07 login", "n[1-3,07],login"),
        ("n09 n10 n9", "n[09-10,9]"),
        ("n3 n1", "n[3,1]"),
        ("r1n1 r1n2 r2n1 r2n2", "r1n[1-2],r2n[1-2]"),
        ("n99 n100", "n[99-100]"),
        ("n099 n100", "n[099-100]"),
        ("a a", "a,a"),
        ("", ""),
    ],
)
def test_host_list(names: str, text: str) -> None:
    assert lists.host_list(names.split()) == text


@given(st.text("n[]0123456789-,()x \n", max_size=40) | st.text(max_size=40))
def test_anything_is_a_list_or_an_error(text: str) -> None:
    for decode in (lists.hosts, lists.counts):
        try:
            assert len(decode(text)) <= lists.ITEMS_MAX
        except SlurmError as error:
            assert error.message.isprintable()  # noqa: PT017  either is right


@pytest.mark.parametrize(
    "text",
    [
        "n[1-2",
        "n]",
        "n[[1]]",
        "n[a]",
        "n[]",
        "n[1-]",
        "n[3-1]",
        "n[1,]",
        "n 1",
        "n[1 2]",
        "n[1--2]",
        "n[\u0663]",
    ],
)
def test_no_host_list(text: str) -> None:
    with pytest.raises(SlurmError, match="host list"):
        lists.hosts(text)


@pytest.mark.parametrize(
    "text",
    [
        "n[0-100000]",
        "n[0-999999999999999999]",
        "[0-999][0-999][0-999]",
        "[0-9]" * 1000,
        ",".join(["n[0-9999]"] * 11),
        "n[1-9999999999999999999]",
        "a" * 300,
        f"{'a' * 252}[0-99999]",
    ],
)
def test_a_few_bytes_do_not_fill_the_memory(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(SlurmError) as caught:
        lists.hosts(text)
    assert time.monotonic() - start < 2
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("name", ["", "a,b", "a[1]", "a b", "a]"])
def test_no_name(name: str) -> None:
    with pytest.raises(SlurmError, match="not a host's name"):
        lists.host_list([name])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 50)), min_size=1, max_size=20))
def test_counts(pairs: list[tuple[int, int]]) -> None:
    text = ",".join(f"{number}(x{times})" if times > 1 else str(number) for number, times in pairs)
    assert lists.counts(text) == tuple(number for number, times in pairs for _ in range(times))


def test_counts_of_slurm() -> None:
    assert lists.counts("4(x2),3") == (4, 4, 3)
    assert lists.counts("2(x3)") == (2, 2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4(x2",
        "4x2",
        "4(2)",
        "-1",
        "4,,3",
        "4 ,3",
        "1(x100001)",
        "1(x9999999999999999999)",
        "1(x60000),1(x60000)",
    ],
)
def test_no_counts(text: str) -> None:
    with pytest.raises(SlurmError, match=r"counts|more than 100000"):
        lists.counts(text)
