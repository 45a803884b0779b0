"""The SPANK plugin's planner: srun's words read as srun reads them, and what becomes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chlaunch.cli import srun as cli
from chlaunch.errors import ConfigError, UsageError
from chlaunch.launch import site
from chlaunch.launch.srun_words import Option, Step, steps

SPANK = Path(__file__).resolve().parents[2] / "spank"
sys.path.insert(0, str(SPANK))  # a script, no package

import table  # noqa: E402


def names(step: Step) -> list[tuple[str, str | None]]:
    """Return the options of a step, name and value."""
    return [(option.name, option.value) for option in step.options]


def words_of(step: Step) -> list[str]:
    """Return all words of a step again."""
    return [word for option in step.options for word in option.words] + list(step.command)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("-N2 -n 4 app", [("N", "2"), ("n", "4")]),
        ("--ntasks=4 --ntasks 4 app", [("ntasks", "4"), ("ntasks", "4")]),
        ("-lukJname app", [("job-name", "name")]),
        ("-luJ name app", [("job-name", "name")]),
        ("-K -I5 -K1 app", [("K", None), ("I", None), ("K", None)]),
        ("-lD /x app", [("chdir", "/x")]),
        ("-D/x app", [("chdir", "/x")]),
        ("--pty app", [("pty", None)]),
        ("--label --bcast app", [("label", None), ("bcast", None)]),
        ("--bcast=/x app", [("bcast", "/x")]),
        ("--chd /x app", [("chdir", "/x")]),
        ("--job-name --container=x app", [("job-name", "--container=x")]),
        ("--ch-image IMG app", [("ch-image", "IMG")]),
        ("--ch-im=IMG --ch-write-fake app", [("ch-image", "IMG"), ("ch-write-fake", None)]),
        ("--ch-no-jo app", [("ch-no-join", None)]),
        ("--ch-bind=a --ch-bind b app", [("ch-bind", "a"), ("ch-bind", "b")]),
        ("--container IMG app", [("container", "IMG")]),
        ("--overlap --exact app", [("overlap", None), ("exact", None)]),
        ("--plugins=x app", [("plugins", "x")]),
        ("- app", []),
    ],
)
def test_options_as_getopt_reads_them(line: str, options: list[tuple[str, str | None]]) -> None:
    words = line.split()
    (step,) = steps(words)
    assert names(step) == options
    assert words_of(step) == words
    assert step.command[0] in ("app", "-")
    assert steps(words, words.index(step.command[0])) == [step]


def test_two_dashes_end_the_options() -> None:
    (step,) = steps(["-n1", "--", "--ch-image=x", "y"])
    assert step.command == ("--ch-image=x", "y")


def test_of_unknown_options_srun_knows_whether_they_have_a_value() -> None:
    words = ["--strange", "x", "app"]
    assert names(steps(words, 2)[0]) == [("strange", "x")]
    assert steps(words, 1)[0].command == ("x", "app")
    with pytest.raises(UsageError, match="can't tell whether x"):
        steps(words)
    assert steps(["--strange", "--ch-image=i", "app"], 2)[0].options[1].value == "i"


def test_steps_between_colons() -> None:
    one, two = steps(["-n1", "--ch-image=a", "app", "--ch-x", ":", "-n2", "-l", "other", ":"], 2)
    assert (names(one), one.command) == ([("n", "1"), ("ch-image", "a")], ("app", "--ch-x"))
    assert (names(two), two.command) == ([("n", "2"), ("l", None)], ("other",))


def test_an_abbreviation_that_matters_must_be_clear() -> None:
    with pytest.raises(UsageError, match="may stand for --container or --container-id"):
        steps(["--containe=x", "app"])


def step(*options: tuple[str, str | None], command: tuple[str, ...] = ("app",)) -> Step:
    """Return a step with long options."""
    return Step(tuple(Option(name, value, (f"--{name}={value}",)) for name, value in options), command)


def test_which_image(tmp_path: Path) -> None:
    configuration = tmp_path / "slurm.conf"
    configuration.touch()
    environment = {"SLURM_CONF": str(configuration)}
    inherited = {**environment, "CHLAUNCH_IMAGE": "job"}
    contained = {**environment, "SLURM_CONTAINER": "theirs"}

    def image(given: Step, variables: dict[str, str]) -> str | None:
        return cli.image_of(given, "/usr/bin/srun", variables)

    assert image(step(), environment) is None
    assert image(step(("ch-image", "x")), inherited) == "x"
    assert image(step(("container", "x")), inherited) == "x"
    assert image(step(("ch-image", "none")), {**inherited, **contained}) is None
    assert image(step(), inherited) == "job"
    assert image(step(), contained) == "theirs"
    assert image(step(), {**contained, "CHLAUNCH_IMAGE": "none"}) is None
    assert image(step(("interactive", None)), inherited) is None
    assert image(step(command=()), inherited) is None
    for command in ("/x/ch-run", "orted", "prted", "hydra_bstrap_proxy", "hydra_pmi_proxy", "pmi_proxy"):
        assert image(step(command=(command, "x")), inherited) is None
        assert image(step(("ch-image", "x"), command=(command,)), inherited) == "x"
    with pytest.raises(UsageError, match="two images"):
        image(step(("ch-image", "x"), ("container", "y")), environment)
    with pytest.raises(UsageError, match="two images"):
        image(step(), {**inherited, **contained})
    (tmp_path / "oci.conf").touch()
    assert image(step(("container", "x")), environment) is None
    assert image(step(), contained) is None
    assert image(step(("container", "x")), inherited) == "job"


def test_a_jobs_options_hold_where_the_variable_is_not_set() -> None:
    passed = {"SLURM_SPANK_CHLAUNCH_IMAGE": "job", "SLURM_SPANK_CHLAUNCH_BIND": "/a\n/b"}
    assert cli.with_passed_down(passed)["CHLAUNCH_IMAGE"] == "job"
    assert cli.with_passed_down({**passed, "CHLAUNCH_IMAGE": ""})["CHLAUNCH_IMAGE"] == "job"
    assert cli.with_passed_down({**passed, "CHLAUNCH_IMAGE": "mine"})["CHLAUNCH_IMAGE"] == "mine"
    assert cli.with_passed_down(passed)["CHLAUNCH_BIND"] == "/a\n/b"


def answer(words: list[str], environment: dict[str, str]) -> tuple[int, list[str], str]:
    """Run the planner as the plugin does; return its exit code, its answer and what it said."""
    read, write = os.pipe()
    command = f'exec {sys.executable} -I -m chlaunch.cli.srun "$@" 3>&{write} {write}>&-'
    done = subprocess.run(
        ["bash", "-c", command, "bash", "/usr/bin/srun", *words],
        pass_fds=[write],
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    os.close(write)
    with os.fdopen(read) as file:
        return done.returncode, file.read().split("\0")[:-1], done.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """Return a directory that will do for an image: it has the command `sh`."""
    for name in ("dev", "proc", "sys", "usr/bin"):
        (tmp_path / "image" / name).mkdir(parents=True)
    (tmp_path / "image/usr/bin/sh").write_bytes(b"#!/usr/bin/app\n")
    (tmp_path / "image/usr/bin/app").write_bytes(b"")
    return tmp_path / "image"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return variables with a Slurm and a ch-run."""
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=x\nSlurmctldHost=localhost\nPlugStackConfig=/dev/null\n"
    )
    ch_run = tmp_path / "ch-run"
    ch_run.touch(mode=0o755)
    return {"SLURM_CONF": str(tmp_path / "slurm.conf"), "CHLAUNCH_CH_RUN": str(ch_run)}


def test_the_new_words(shell: Path, environment: dict[str, str]) -> None:
    line = ["-n2", "--ch-image", str(shell), "-lD", "/tmp", "--ch-no-join", "sh", "-c", "--ch-image"]
    code, words, said = answer(["6", *line], environment)
    assert (code, said) == (0, "")
    at = words.index(environment["CHLAUNCH_CH_RUN"])
    before = words[:at]
    assert before[0] == "run"
    assert before[-5:] == ["--job-name=sh", "-n2", "-lD", "/tmp", "--chdir=/tmp"]
    assert "--cd-try=/tmp" in words[at:]
    assert "--join" not in words
    assert words[-5:] == [str(shell), "--", "sh", "-c", "--ch-image"]


def test_every_step_of_a_line(shell: Path, environment: dict[str, str]) -> None:
    line = f"-n1 --ch-image={shell} --ch-mpi=none sh : -n2 --ch-image=none host : -n3 sh"
    code, words, _ = answer(["3", *line.split()], {**environment, "CHLAUNCH_IMAGE": str(shell)})
    assert code == 0
    assert words.count(":") == 2
    assert words[words.index(":") + 1 :][:3] == ["-n2", "host", ":"]
    assert words.count(environment["CHLAUNCH_CH_RUN"]) == 2


def test_nothing_to_do(environment: dict[str, str]) -> None:
    assert answer(["1", "-n1", "app"], environment)[1] == ["stay"]
    assert answer(["0"], {**environment, "CHLAUNCH_IMAGE": "/image"})[1] == ["stay"]


def test_a_dry_run(shell: Path, environment: dict[str, str]) -> None:
    assert answer(["3", f"--ch-image={shell}", "--ch-dry-run", "sh"], environment)[1] == ["stop"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--ch-image=/not/there app", 31, "can't find image: /not/there"),
        ("--container=/not/there app", 31, "can't find image: /not/there"),
        ("--ch-bind=/x app", 64, "--ch-bind=/x without an image"),
        ("--ch-image=IMAGE --multi-prog app", 2, "--multi-prog has its commands in a file"),
        ("--ch-image=IMAGE --bcast app", 2, "--bcast copies a program"),
        ("--ch-image=IMAGE nosuch", 49, "command not found in the image: nosuch"),
        ("--ch-image=IMAGE --ch-uid=x sh", 64, "uid must be a number"),
    ],
)
def test_what_is_refused(line: str, code: int, says: str, shell: Path, environment: dict[str, str]) -> None:
    words = [word.replace("IMAGE", str(shell)) for word in line.split()]
    found, words, said = answer([str(len(words) - 1), *words], environment)
    assert (found, words) == (code, [])
    assert said.startswith("srun: error: " + says)
    assert said.count("\n") <= 2


def test_a_job_keeps_the_name_its_user_gave(environment: dict[str, str]) -> None:
    named = {**environment, "SLURM_JOB_NAME": "mine"}
    assert cli._job_name(step(), named) == ()  # noqa: SLF001
    assert cli._job_name(step(), {**named, "SLURM_JOB_ID": "1"}) == ("--job-name=app",)  # noqa: SLF001


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_change_is_not_read(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('[options]\nbind = ["/x"]\n')
    assert site.load({}, str(file), guarded=True).layers
    file.chmod(mode)
    assert site.load({}, str(file)).layers
    with pytest.raises(ConfigError, match="others can change it"):
        site.load({}, str(file), guarded=True)


def test_a_file_of_another_user_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, file = tmp_path / "base.toml", tmp_path / "site.toml"
    base.touch()
    file.write_text(f'base = ["{base}"]\n')
    assert site.load({}, str(file), guarded=True).layers
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    os.chown(base, 4243, -1)
    with pytest.raises(ConfigError, match=r"base\.toml: not read, because it is neither yours nor root's"):
        site.load({}, str(file), guarded=True)


def test_the_header_has_the_table() -> None:
    assert (SPANK / "options.h").read_text() == table.header(), "run make docs"
