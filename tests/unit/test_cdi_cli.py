"""ch-cdi as a command: what ch-run gives it, and what it becomes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAIN = "import sys; from chlaunch.cli.cdi import main; main()"


@pytest.fixture
def ch_run(tmp_path: Path) -> str:
    """Return a program that prints its words, a line each, and ends with 7."""
    path = tmp_path / "ch-run"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with a CDI file: vendor.com/class=d, a variable and a hook that is left out."""
    made = tmp_path / "cdi"
    made.mkdir()
    hook = {
        "hookName": "createContainer",
        "path": "/bin/nvidia-cdi-hook",
        "args": ["nvidia-cdi-hook", "chmod"],
    }
    device = {"name": "d", "containerEdits": {"env": ["A=$B c"], "hooks": [hook]}}
    text = json.dumps({"cdiVersion": "0.5.0", "kind": "vendor.com/class", "devices": [device]})
    (made / "x.json").write_text(text)
    return made


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ch-cdi in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        env={"PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        check=False,
        text=True,
    )


def test_it_becomes_ch_run(directory: Path, ch_run: str) -> None:
    rest = ("--device=vendor.com/class=d", "image dir", "--", "app", "--all", "")
    done = run(f"--dirs={directory}", "--request=vendor.com/class=d", "--", ch_run, *rest)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.splitlines() == ["--cdi-resolved", "--env=A=$B c", *rest]


@pytest.mark.parametrize("word", ["--all", "--request=vendor.com/class", "--request=FILE"])
def test_ways_to_ask(directory: Path, ch_run: str, word: str) -> None:
    done = run(word.replace("FILE", f"{directory}/x.json"), "--", ch_run, CH_RUN_CDI_DIRS=str(directory))
    assert done.stdout.splitlines() == ["--cdi-resolved", "--env=A=$B c"]


def test_words_need_not_be_utf8(directory: Path, ch_run: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, f"--dirs={directory}", "--all", "--", ch_run, b"\xff\xfe"],
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == b"\xff\xfe"


def test_warnings_are_the_first_ranks_and_notes_for_the_curious(directory: Path, ch_run: str) -> None:
    (directory / "bad.json").write_text("{")
    words = (f"--dirs={directory}", "--request=vendor.com/class=d")
    (warning,) = run(*words, "--", ch_run, SLURM_LOCALID="0").stderr.splitlines()
    assert warning.startswith("ch-cdi[")
    assert f"]: warning: CDI file left out: {directory}/bad.json:1: not JSON" in warning
    assert run(*words, "--", ch_run, SLURM_LOCALID="0", OMPI_COMM_WORLD_LOCAL_RANK="1").stderr == ""
    _, note = run(*words, "--verbose", "--", ch_run).stderr.splitlines()
    assert "]: note: hook chmod left out: " in note
    assert note.endswith(f"[{directory}/x.json]")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["--request=vendor.com/class=e", "--", "RUN"],
            31,
            "can't find CDI device vendor.com/class=e in DIR",
        ),
        (
            ["--request=./gone.json", "--", "RUN"],
            31,
            "can't read CDI file ./gone.json: No such file or directory",
        ),
        (["--all", "--", "/nowhere/ch-run"], 31, "can't execute /nowhere/ch-run: No such file or directory"),
        (["--request=gpu", "--", "RUN"], 64, "not a CDI device: 'gpu'"),
        (["--all"], 64, "no ch-run after `--`"),
        (["--all", "--"], 64, "no ch-run after `--`"),
        (["--", "RUN"], 64, "no device asked for"),
        (["--request=", "--", "RUN"], 64, "unknown word --request="),
        (["--device=vendor.com/class=d", "--", "RUN"], 64, "unknown word --device"),
    ],
)
def test_failures(directory: Path, ch_run: str, words: list[str], code: int, said: str) -> None:
    done = run(f"--dirs={directory}", *(ch_run if word == "RUN" else word for word in words))
    first, *others = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, "")
    assert first.startswith("ch-cdi[")
    assert f"]: error: {said.replace('DIR', str(directory))}" in first
    assert all(line.startswith("ch-cdi[") and "]: hint: " in line for line in others)


def test_help(directory: Path) -> None:
    done = run("--help", CH_RUN_CDI_DIRS=str(directory))
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ch-cdi [--dirs=A:B]")


def test_it_starts_without_what_is_slow(directory: Path) -> None:
    """Every rank may come this way."""
    program = (
        "import os, sys; from chlaunch.cli.cdi import cdi;"
        "os.execv = lambda *words: print(*sorted(sys.modules), sep='\\n');"
        f"cdi(['--dirs={directory}', '--all', '--', '/x'], os.environ)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        check=True,
        text=True,
    )
    modules = set(done.stdout.split())
    assert "json" in modules
    assert not modules & {
        "click",
        "yaml",
        "requests",
        "subprocess",
        "difflib",
        "tomllib",
        "importlib.metadata",
    }
