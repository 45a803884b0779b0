"""ch-doctor's verdicts on facts as they were recorded, its processes, its report."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from chlaunch.cli import doctor as cli
from chlaunch.doctor import checkup, files, host, images, offers, siblings
from chlaunch.doctor.rows import Patient, Row, fine, problem, warning
from chlaunch.doctor.running import Check, run
from chlaunch.doctor.siblings import Outcome
from chlaunch.errors import RefusedError, UsageError
from chlaunch.launch.image import Image
from chlaunch.launch.plan import Plan
from chlaunch.launch.tables import Row as Reason
from chlaunch.slurm import Offer
from chlaunch.slurm.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENT = Patient({}, "/", "/")

# Debian's and Ubuntu 24.04's defaults
SWITCHES = {
    "kernel.unprivileged_userns_clone": "1",
    "user.max_user_namespaces": "96365",
    "user.max_mnt_namespaces": "96365",
}
MAKE, MAP, MOUNT = "make a user namespace", "map IDs in it", "make a mount namespace"


@pytest.mark.parametrize(
    ("failed", "error", "switches", "verdict", "remedy"),
    [
        ("", 0, {}, "ok", ""),
        (MAKE, errno.ENOSPC, {"user.max_user_namespaces": "0"}, "problem", "user.max_user_namespaces=65536"),
        (MOUNT, errno.ENOSPC, {"user.max_mnt_namespaces": "0"}, "problem", "user.max_mnt_namespaces=65536"),
        (MAKE, errno.EPERM, {"kernel.unprivileged_userns_clone": "0"}, "problem", "userns_clone=1"),
        (
            MAP,
            errno.EPERM,
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "problem",
            "AppArmor profile",
        ),
        (MOUNT, errno.EACCES, {"kernel.apparmor_restrict_unprivileged_userns": "1"}, "problem", "AppArmor"),
        (MAKE, errno.EPERM, {}, "problem", "seccomp=unconfined"),
        (MAKE, errno.EINVAL, {}, "problem", "CONFIG_USER_NS"),
        (MAKE, errno.EUSERS, {}, "problem", "outside of containers"),
    ],
)
def test_namespaces(failed: str, error: int, switches: dict[str, str], verdict: str, remedy: str) -> None:
    row = host.judge_namespaces(failed, error, {**SWITCHES, **switches})
    assert row.verdict == verdict
    assert remedy in row.remedy
    assert os.strerror(error) in row.found or not failed


def test_limits() -> None:
    assert host.judge_limits(SWITCHES, 64) == []
    (row,) = host.judge_limits({**SWITCHES, "user.max_user_namespaces": "100"}, 64)
    assert (row.verdict, row.remedy) == ("warning", "as root: sysctl user.max_user_namespaces=65536")


@pytest.mark.parametrize(
    ("scope", "verdict"), [("", "ok"), ("0", "ok"), ("1", "warning"), ("2", "problem"), ("3", "problem")]
)
def test_yama(scope: str, verdict: str) -> None:
    row = host.judge_yama(scope)
    assert row.verdict == verdict
    assert ("ptrace_scope=0" in row.remedy) == (verdict != "ok")


@pytest.mark.parametrize(
    ("error", "attributes", "verdict", "found"),
    [
        (0, 0, "ok", "/var/tmp"),
        (errno.EPERM, 0, "warning", "no --write-fake, and builds copy"),
        (0, errno.ENOTSUP, "warning", "takes no user attributes"),
    ],
)
def test_overlay(error: int, attributes: int, verdict: str, found: str) -> None:
    (row,) = host.judge_overlay("/var/tmp", error, attributes)
    assert row.verdict == verdict
    assert found in row.found


@pytest.mark.parametrize(
    ("error", "needed", "verdict", "remedy"),
    [
        (0, True, "ok", ""),
        (errno.EACCES, True, "problem", "chmod 666 /dev/fuse"),
        (errno.EACCES, False, "warning", "chmod 666 /dev/fuse"),
        (errno.ENOENT, False, "warning", "modprobe fuse"),
    ],
)
def test_fuse(error: int, needed: bool, verdict: str, remedy: str) -> None:  # noqa: FBT001  a column
    row = files.judge_fuse(error, 0o600, needed=needed)
    assert row.verdict == verdict
    assert remedy in row.remedy


def test_squashfuse() -> None:
    assert files.judge_squashfuse("/bin/s", "0.5.2", needed=True, threads=True).verdict == "ok"
    assert files.judge_squashfuse("/bin/s", "0.1.104", needed=True, threads=False).verdict == "warning"
    assert files.judge_squashfuse(None, "", needed=False, threads=False).verdict == "warning"
    assert files.judge_squashfuse(None, "", needed=True, threads=False).verdict == "problem"


def test_noexec() -> None:
    assert files.judge_noexec({}).verdict == "ok"
    row = files.judge_noexec({"home": "/home/a", "/tmp": "/tmp"})
    assert (row.verdict, row.found.split(":")[0]) == ("warning", "/home/a (home), /tmp")
    assert files.judge_noexec({"image": "/x"}).verdict == "problem"
    assert files.judge_noexec({"storage": "/x"}).verdict == "problem"


@pytest.mark.parametrize(
    ("size", "free", "cpus", "verdict"),
    [
        (64, 64, 2, "ok"),
        (64, 64, 64, "warning"),
        (64, 10, 2, "problem"),
        (8, 8, 1, "problem"),
        (9999, 9999, 128, "ok"),
    ],
)
def test_shared_memory(size: int, free: int, cpus: int, verdict: str) -> None:
    assert files.judge_shared_memory(size, free, cpus).verdict == verdict


def test_tmp() -> None:
    assert files.judge_tmp(900, 900, writable=True, full=False).verdict == "ok"
    assert files.judge_tmp(900, 9, writable=True, full=False).verdict == "warning"
    assert "no inode" in files.judge_tmp(900, 900, writable=True, full=True).found
    assert files.judge_tmp(900, 900, writable=False, full=False).verdict == "problem"


@pytest.mark.parametrize(
    ("outcomes", "joined", "apart"),
    [
        ([Outcome(), Outcome()], "ok", "ok"),
        ([Outcome(), Outcome(errno.EPERM)], "problem", "ok"),
        ([Outcome(errno.EPERM, dumpable=0), Outcome(errno.EPERM, dumpable=0)], "problem", "ok"),
        ([Outcome(errno.ENOSYS), Outcome(errno.ENOSYS)], "problem", "warning"),
        ([Outcome(errno.ETIMEDOUT), Outcome()], "problem", "problem"),
        ([Outcome(), Outcome(complaint="can't mount")], "problem", "problem"),
    ],
)
def test_siblings(outcomes: list[Outcome], joined: str, apart: str) -> None:
    assert siblings.judge_joined(outcomes).verdict == joined
    assert siblings.judge_apart(outcomes).verdict == apart
    assert siblings.judge_joined(outcomes[::-1]) == siblings.judge_joined(outcomes)


def test_why_siblings_fail() -> None:
    remedies = {
        siblings.judge_joined([outcome, Outcome()]).remedy
        for outcome in (Outcome(errno.EPERM, dumpable=0), Outcome(errno.EPERM), Outcome(errno.ENOSYS))
    }
    assert len(remedies) == 3


def test_complaint() -> None:
    said = "ch-run[7]: error: can't mount: /x: EPERM\nch-run[7]: hint: dmesg [CH-0030]\n"
    assert siblings.complaint(said, 31) == ("can't mount: /x: EPERM", "dmesg [CH-0030]")
    assert siblings.complaint("Killed", 137) == ("Killed", "")
    assert siblings.complaint("", 31) == ("it ended with 31", "")


PLUGINS = ("pmix", "none", "pmi2", "pmix_v4")
OFFER = Offer(PLUGINS, "srun --mpi=list", "22.05.8")


@pytest.mark.parametrize(
    ("default", "plugins", "verdict"),
    [
        ("pmix", PLUGINS, "ok"),
        ("none", PLUGINS, "warning"),
        ("", PLUGINS, "warning"),
        ("none", ("none", "pmi2"), "ok"),
        ("pmix_v5", PLUGINS, "problem"),
    ],
)
def test_mpi_default(default: str, plugins: tuple[str, ...], verdict: str) -> None:
    row = offers.judge_default(default, Offer(plugins, ""))
    assert row.verdict == verdict
    assert verdict != "warning" or "SLURM_MPI_TYPE=pmix" in row.remedy


def test_plugins() -> None:
    row = offers.judge_plugins(OFFER, {"pmix_v4": "4.2.2"})
    assert (row.verdict, row.found) == ("ok", "pmix, none, pmi2, pmix_v4 (PMIx 4.2.2)")
    assert offers.judge_plugins(OFFER, {"pmix_v4": ""}).verdict == "warning"
    assert "no pmix" in offers.judge_plugins(Offer(("none", "pmi2"), ""), {}).found


def test_slurm() -> None:
    assert offers.judge_slurm(OFFER, Facts(version="22.05.11", origin="x")).verdict == "ok"
    assert offers.judge_slurm(OFFER, Facts(version="24.11.5", origin="x")).verdict == "warning"
    assert offers.judge_no_slurm("there is no srun in PATH", broken=False).verdict == "ok"
    assert offers.judge_no_slurm("SLURM_CONF is /x", broken=True).verdict == "problem"


REGISTERED = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {}\noffset 0\n"


@pytest.mark.parametrize(
    ("machine", "emulator", "verdict"),
    [
        ("x86_64", "", "ok"),
        ("i686", "", "ok"),
        ("aarch64", "", "problem"),
        ("aarch64", REGISTERED.format("F"), "warning"),
        ("aarch64", REGISTERED.format("POCF"), "warning"),
        ("aarch64", REGISTERED.format("PO"), "problem"),
    ],
)
def test_machine(machine: str, emulator: str, verdict: str) -> None:
    assert images.judge_machine(machine, "x86_64", emulator).verdict == verdict


@pytest.mark.parametrize(
    ("image", "command", "verdict", "found"),
    [
        (Image("/i", unseen="a SIF file"), (), "warning", "can't be seen"),
        (Image("/i"), ("app",), "problem", "app is not in the image"),
        (Image("/i", plain=True, command="/bin/app"), ("app",), "ok", "uses no MPI"),
        (Image("/i", strange="libmpi.so.7"), (), "warning", "libmpi.so.7"),
        (Image("/i"), (), "ok", "no MPI"),
    ],
)
def test_speech(image: Image, command: tuple[str, ...], verdict: str, found: str) -> None:
    row = images.judge_speech(image, command)
    assert row.verdict == verdict
    assert found in row.found


def test_a_line() -> None:
    reasons = (
        Reason("launcher srun", "there is a Slurm", "here"),
        Reason("--mpi=pmix", "it speaks", "x.toml:1"),
    )
    good = images.judge_line("ch-launch", Plan(("srun",), {}, reasons), needed=True)
    assert good == fine("ch-launch", "there is a Slurm; --mpi=pmix: it speaks")
    noted = images.judge_line("ch-launch", Plan(("srun",), {}, reasons, ("mind this",)), needed=True)
    assert noted.verdict == "warning"
    refusal = RefusedError("it can't", "do that")
    assert images.judge_line("ch-launch", refusal, needed=True) == problem(
        "ch-launch", "refused: it can't", "do that"
    )
    assert images.judge_line("guest", refusal, needed=False).verdict == "ok"


# The processes that checks are.


def looks(**checks: Callable[[Patient], list[Row]]) -> dict[str, list[Row]]:
    """Run checks with a deadline of half a second; return their rows."""
    rows = tuple(Check("area", name, look, 0.5) for name, look in checks.items())
    return {check.name: found for check, found in run(rows, PATIENT)}


def hang(_: Patient) -> list[Row]:
    time.sleep(60)
    return []


def hang_stubbornly(_: Patient) -> list[Row]:
    while True:
        try:
            time.sleep(60)
        except SystemExit:
            continue


def die(_: Patient) -> list[Row]:
    os._exit(3)


def stumble(_: Patient) -> list[Row]:
    return [fine("", str(1 // 0))]


def refuse(_: Patient) -> list[Row]:
    raise RefusedError("it can't be", "do that")


def miss(_: Patient) -> list[Row]:
    os.stat("/no/such")  # noqa: PTH116  its error
    return []


def chat(_: Patient) -> list[Row]:
    sys.stdout.write("noise")
    return [fine("chat", "x" * 200_000)]


def test_a_failing_check_hides_no_other() -> None:
    start = time.monotonic()
    found = looks(
        hang=hang, stubborn=hang_stubbornly, die=die, stumble=stumble, refuse=refuse, miss=miss, chat=chat
    )
    assert time.monotonic() - start < 5
    assert {name: [row.verdict for row in rows] for name, rows in found.items()} == {
        **{name: ["problem"] for name in ("hang", "stubborn", "die", "stumble", "refuse", "miss")},
        "chat": ["ok"],
    }
    assert found["hang"][0].found == "no answer in 0.5 s"
    assert found["die"][0].found == "the check's process died"
    assert "ZeroDivisionError" in found["stumble"][0].found
    assert found["refuse"] == [problem("refuse", "it can't be", "do that")]
    assert found["miss"][0].found == "/no/such: No such file or directory"
    assert len(found["chat"][0].found) == 200_000


def test_nothing_is_left_running(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def leave(_: Patient) -> list[Row]:
        child = subprocess.Popen(["sleep", "60"])
        note.write_text(str(child.pid))
        return [fine("leave", "")]

    looks(leave=leave)
    state = f"/proc/{note.read_text()}/stat"
    for _ in range(200):
        try:
            with open(state) as file:  # noqa: PTH123  of a process
                if file.read().split()[2] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(state)


def test_what_a_check_made_is_removed(tmp_path: Path) -> None:
    import tempfile  # noqa: PLC0415  of one test

    def make(_: Patient) -> list[Row]:
        with tempfile.TemporaryDirectory(dir=tmp_path):
            time.sleep(60)
        return []

    looks(make=make)
    assert list(tmp_path.iterdir()) == []


# The report.

ROWS = [
    (Check("host", "a", hang), [fine("a", "good\x1b[31m"), warning("b", "bad", "do")]),
    (Check("image", "c", hang), [problem("c", "worse " * 40, "act")]),
]


def test_report() -> None:
    verdicts: list[str] = []
    text = "\n".join(checkup.as_lines(ROWS, verdicts))
    assert text.startswith("host\n  ok       a: good [31m\n  warning  b: bad\n           -> do\n\nimage\n")
    assert text.endswith("\n1 problem, 1 warning")
    assert verdicts == ["ok", "warning", "problem"]
    assert max(map(len, text.splitlines())) <= checkup.WIDTH


def test_json() -> None:
    report = json.loads(checkup.as_json(ROWS, [], os.environ))
    assert report["verdict"] == "problem"
    assert report["rows"][1] == {
        "area": "host",
        "name": "b",
        "verdict": "warning",
        "found": "bad",
        "remedy": "do",
    }


@pytest.mark.parametrize(
    ("verdicts", "code"), [([], 0), (["ok"], 0), (["ok", "warning"], 1), (["problem", "warning", "ok"], 2)]
)
def test_exit_code(verdicts: list[str], code: int) -> None:
    assert checkup.exit_code(verdicts) == code


@pytest.mark.parametrize("words", [["--no-such"], ["one", "two"], ["--", "app"]])
def test_usage(words: list[str]) -> None:
    with pytest.raises(UsageError):
        cli.doctor(words, {})


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.doctor(["--help"], {}) == 0
    assert "ch-doctor" in capsys.readouterr().out
