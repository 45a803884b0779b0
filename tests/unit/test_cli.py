"""ch-launch as a command: words in, words out, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chlaunch.cli import launch as cli
from chlaunch.cli import shared
from chlaunch.errors import EXIT_CODES, ChlaunchError
from chlaunch.launch.options import OPTIONS

CHECKOUT = Path(__file__).resolve().parents[2]
MAIN = "import sys; from chlaunch.cli.launch import main; main()"


def run(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ch-launch in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        check=False,
        text=True,
    )


def test_a_plan_runs(image: Path, environment: dict[str, str]) -> None:
    ch_run = Path(environment["CHLAUNCH_CH_RUN"])
    ch_run.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    done = run(["-n", "2", str(image), "--", "app", "a b"], environment)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[-6:] == ["--", "mpirun.openmpi", "-n", "2", "app", "a b"]
    assert done.stderr == ""


def test_dry_run_is_one_line_that_does_the_same(image: Path, environment: dict[str, str]) -> None:
    dry = run(["--ch-dry-run", "-n2", str(image), "--", "app", "$(rm -r /)"], environment)
    assert (dry.returncode, dry.stderr, dry.stdout.count("\n")) == (0, "", 1)
    assert shlex.split(dry.stdout)[-4:] == ["mpirun.openmpi", "-n2", "app", "$(rm -r /)"]


def test_explain(image: Path, environment: dict[str, str]) -> None:
    done = run(["--ch-dry-run", "--ch-explain", "--ch-bind=/a", str(image), "--", "app"], environment)
    assert "ch-launch: bind /a: asked for [command line (--ch-bind)]" in done.stderr.splitlines()
    assert re.search(r"unset LD_PRELOAD: .* \[site-configs/generic\.toml:\d+\]", done.stderr)


def test_json(image: Path, environment: dict[str, str]) -> None:
    done = run(["--ch-dry-run", "--ch-json", str(image), "--", "app"], environment)
    plan = json.loads(done.stdout)
    assert plan["argv"][0] == environment["CHLAUNCH_CH_RUN"]
    assert set(plan) == {"argv", "environment", "reasons", "notes"}
    assert set(plan["reasons"][0]) == {"what", "why", "origin"}
    done = run(["--ch-json", str(image), "--", "app"], environment)
    assert done.stdout == ""
    assert json.loads(done.stderr)["argv"] == plan["argv"]


def test_the_environment_is_not_passed_on(image: Path, environment: dict[str, str]) -> None:
    done = run(["--", "app"], {**environment, "CHLAUNCH_IMAGE": str(image), "CHLAUNCH_DRY_RUN": "1"})
    assert "--unset-env=CHLAUNCH_*" in shlex.split(done.stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["IMAGE", "app"], 64, ("no `--` between", "usage: ch-launch")),
        (["IMAGE", "--"], 64, ("no command after `--`", "usage: ch-launch")),
        (["--ch-unknown", "IMAGE", "--", "app"], 64, ("unknown option --ch-unknown", "--help")),
        (["--ch-write=yes", "IMAGE", "--", "app"], 64, ("does not take a value", "--help")),
        (["--ch-uid=root", "IMAGE", "--", "app"], 64, ("uid must be a number, not root", "--ch-uid")),
        (["--ch-cd=", "IMAGE", "--", "app"], 64, ("cd is empty", "--ch-cd")),
        (["--ch-launcher=pbs", "IMAGE", "--", "app"], 64, ("launcher must be one of", "--ch-launcher")),
        (["./nowhere", "--", "app"], 31, ("can't find image: ./nowhere: No such file", "last word")),
        (
            ["nowhere", "--", "app"],
            31,
            ("can't find image: nowhere (nor in storage: /var/tmp/", "--ch-storage"),
        ),
        (["--ch-write-fake=much", "IMAGE", "--", "app"], 64, ("must be a size such as", "--ch-write-fake")),
        (["--ch-write", "--ch-write-fake", "IMAGE", "--", "app"], 64, ("exclude each other", "one of them")),
        (["--ch-env=A", "IMAGE", "--", "app"], 64, ("env must be NAME=VALUE, not A", "--ch-env")),
        (
            ["--ch-launcher=srun", "IMAGE", "--", "app"],
            2,
            ("there is no srun in PATH", "--ch-launcher=guest"),
        ),
        (["--ch-site=/nowhere", "IMAGE", "--", "app"], 64, ("can't read /nowhere", "")),
        (["--ch-site=cray", "IMAGE", "--", "app"], 64, ("can't read cray: no such", "did you mean cray-ex?")),
    ],
)
def test_failures(
    image: Path, environment: dict[str, str], words: list[str], code: int, said: tuple[str, str]
) -> None:
    done = run([str(image) if word == "IMAGE" else word for word in words], environment)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, "")
    assert lines[0].startswith("ch-launch: error: ")
    assert said[0] in lines[0]
    assert all(line.startswith("ch-launch: hint: ") for line in lines[1:])
    assert said[1] in "".join(lines[1:])


@pytest.mark.parametrize(
    ("words", "variable", "given"),
    [
        ([], "", []),
        (["--ch-write-fake"], "", ["--write-fake=12%"]),
        (["--ch-write-fake=9m"], "", ["--write-fake=9m"]),
        ([], "9m", ["--write-fake=9m"]),
        ([], "yes", ["--write-fake=12%"]),
        ([], "no", []),
        (["--ch-write-fake=no"], "9m", []),
        (["--ch-write-fake"], "9m", ["--write-fake=12%"]),
    ],
)
def test_an_option_whose_value_may_be_left_out(
    image: Path, environment: dict[str, str], words: list[str], variable: str, given: list[str]
) -> None:
    done = run(
        [*words, "--ch-dry-run", str(image), "--", "app"], {**environment, "CHLAUNCH_WRITE_FAKE": variable}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [word for word in shlex.split(done.stdout) if word.startswith("--write")] == given


def test_images_by_name_and_files(environment: dict[str, str], tmp_path: Path, image: Path) -> None:
    (tmp_path / "store/images/debian+12").mkdir(parents=True)
    (tmp_path / "store/images/debian+12/layers").write_text("1a\n")
    (tmp_path / "store/l").mkdir()
    (tmp_path / "store/l/1a").symlink_to(image)
    file = tmp_path / "image.sqfs"
    subprocess.run(["mksquashfs", image, file, "-quiet", "-no-progress"], check=True)
    for word, last in (
        ("debian:12", ["--storage=" + str(tmp_path / "store"), "debian:12"]),
        (file, [str(file)]),
    ):
        words = [
            f"--ch-storage={tmp_path}/store",
            "--ch-dry-run",
            "--ch-launcher=guest",
            str(word),
            "--",
            "app",
        ]
        done = run(words, environment)
        assert done.returncode == 0, done.stderr
        planned = shlex.split(done.stdout)
        assert planned[planned.index("--") - 1 :] == [last[-1], "--", "mpirun.openmpi", "app"]
        assert [word for word in planned if word.startswith("--storage")] == last[:-1]


def test_a_launcher_that_can_not_be_executed(image: Path, environment: dict[str, str]) -> None:
    Path(environment["CHLAUNCH_CH_RUN"]).write_bytes(b"\x00\x01not a program")
    done = run([str(image), "--", "app"], environment)
    assert done.returncode == 49
    assert "Exec format error" in done.stderr


def test_debug_gives_a_traceback(environment: dict[str, str]) -> None:
    for words, variables in (["--ch-debug"], {}), ([], {"CHLAUNCH_DEBUG": "1"}):
        done = run([*words, "./nowhere", "--", "app"], {**environment, **variables})
        assert "Traceback" in done.stderr
    assert "Traceback" not in run(["./nowhere", "--", "--ch-debug"], environment).stderr


def test_help_and_version(environment: dict[str, str]) -> None:
    text = run(["--help"], environment).stdout
    for option in OPTIONS:
        assert (f"--ch-{option.name}" in text) == (option.door != "srun")
        value = f"[={option.metavar}]" if option.kind == "optional" else f"={option.metavar}"
        if option.metavar and option.door != "srun":
            assert re.search(rf"^  --ch-{option.name}{re.escape(value)}( |$)", text, re.MULTILINE)
    assert re.fullmatch(r"ch-launch \S.*\n", run(["--version"], environment).stdout)


def test_slow_modules_stay_out(image: Path, environment: dict[str, str]) -> None:
    program = (
        "import sys; from chlaunch.cli.launch import launch; import os;"
        f"launch(['--ch-dry-run', '-n2', {str(image)!r}, '--', 'mpirun.openmpi'], os.environ);"
        "print(*sorted(sys.modules), sep='\\n')"
    )
    for _ in range(2):  # what it found in the image is kept for the second
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            check=True,
            text=True,
        )
    modules = set(done.stdout.split())
    assert "click" in modules
    slow = {
        "requests",
        "rich",
        "pyslurm",
        "mpi4py",
        "numpy",
        "subprocess",
        "difflib",
        "importlib.metadata",
        "elftools",
    }
    assert not modules & slow


def test_exit_codes_are_in_the_table() -> None:
    family = [ChlaunchError]
    for kind in family:
        family += kind.__subclasses__()
        assert kind.exit_code in EXIT_CODES
        if kind.__module__ == "chlaunch.errors":  # others are kinds of these, for those who raise them
            assert kind.__name__ in str(sys.modules["chlaunch.errors"].__doc__)
    assert len(family) > 5


def test_an_interrupt_is_no_traceback() -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    assert shared.run("x", interrupted, []) == 130


def test_every_row_becomes_an_option_of_click() -> None:
    names = {name.removeprefix("ch_").replace("_", "-") for name in cli.parse(())}
    assert names == {option.name for option in OPTIONS if option.door != "srun"}
    assert os.environ.get("CHLAUNCH_UNKNOWN") is None
