"""The grammar: what starts with --ch- is ours, the last word before -- is the image, the rest is the launcher's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import UsageError
from chlaunch.launch.grammar import Words, split, value_of

if TYPE_CHECKING:
    from pathlib import Path


def test_one_line() -> None:
    words = ["--ch-write", "-N2", "-n", "4", "--ch-bind=/a", "./img", "--", "app", "--", "--ch-x"]
    assert split(words) == Words(
        ours=("--ch-write", "--ch-bind=/a"),
        launcher=("-N2", "-n", "4"),
        image="./img",
        command=("app", "--", "--ch-x"),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no `--`"),
        (["./img", "app"], "no `--`"),
        (["./img", "--"], "no command"),
        (["--"], "no command"),
        (["--", "app"], "no image before"),
        (["-n4", "--", "app"], "no image: the last word before `--` is -n4"),
        (["--ch-write", "--", "app"], "no image"),
        (["--ch-bind", "./img", "--", "app"], "--ch-bind needs a value"),
        (["--ch-bnd=/a", "./img", "--", "app"], "unknown option --ch-bnd=/a"),
        (["--ch-image=./a", "./b", "--", "app"], "two images"),
        (["--ch-image=./a", "-n4", "b", "--", "app"], "two images"),
        (["--ch-image=./a", "--nodes=2", "b", "--", "app"], "two images"),
        (["--ch-image=./a", "-n", "4", "b", "--", "app"], "two images"),
    ],
)
def test_usage_errors(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        split(words)
    assert caught.value.exit_code == 64
    assert caught.value.hint


def test_nearest_option() -> None:
    with pytest.raises(UsageError) as caught:
        split(["--ch-no-hme", "./img", "--", "app"])
    assert caught.value.hint == "did you mean --ch-no-home?"


@pytest.mark.parametrize(
    "words", [[], ["-n4"], ["-n", "4"], ["--nodes=2"], ["--mca", "btl", "self"], ["-D", "./b"]]
)
def test_an_image_option_leaves_all_words_to_the_launcher(words: list[str]) -> None:
    assert split(["--ch-image=./a", *words, "--", "app"]) == Words(
        ("--ch-image=./a",), tuple(words), None, ("app",)
    )
    assert split([*words, "--", "app"], image_elsewhere=True) == Words((), tuple(words), None, ("app",))


def test_a_word_that_is_an_image_is_no_value(image: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "file.sqfs", tmp_path / "other"
    file.write_bytes(b"hsqs and more")
    other.write_text("no image")
    for word in (image, file):
        with pytest.raises(UsageError, match="two images"):
            split(["--ch-image=./a", "-l", str(word), "--", "app"])
    assert split(["--ch-image=./a", "-l", str(other), "--", "app"]).launcher == ("-l", str(other))


def test_the_line_wins_over_the_environment() -> None:
    assert split(["-n4", "./img", "--", "app"], image_elsewhere=True).image == "./img"


def test_random_lines() -> None:
    choose = random.Random(1)  # noqa: S311  the same lines each time
    launcher = [
        "-N2",
        "-n",
        "4",
        "--mpi=pmix",
        "a b",
        "",
        "--label",
        "-",
        "é",
        "--mca",
        "btl",
        "*",
        "-ch-write",
    ]
    ours = ["--ch-write", "--ch-bind=/a", "--ch-no-join", "--ch-set-env=A=", "--ch-cd=--"]
    for _ in range(2000):
        theirs = choose.choices(launcher, k=choose.randrange(6))
        mine = choose.choices(ours, k=choose.randrange(4))
        command = choose.choices([*launcher, *ours, "--"], k=choose.randrange(1, 5))
        before = [*theirs, "./img"]
        for word in mine:
            before.insert(choose.randrange(len(before) + 1), word)
        got = split([*before, "--", *command])
        assert (got.launcher, got.image, got.command) == (tuple(theirs), "./img", tuple(command))
        assert sorted(got.ours) == sorted(mine)


def test_value_of() -> None:
    assert value_of(("--mpi=a", "-n4", "--mpi", "b"), ("--mpi",)) == "b"
    assert value_of(("-n4", "--mpi"), ("--mpi",)) == ""
    assert value_of(("-n4",), ("--mpi",)) is None
