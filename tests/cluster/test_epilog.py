"""plugins/epilog: what an ended job's containers left on a node goes, and nothing else does, whoever planted what."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cluster import Cluster
from images import cache_directory
from machine import CHECKOUT
from space import finish

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

JOB = 777  # one that Slurm has not given to anybody here

# Stands between the epilog and ch-run, and writes down with which rights it was started.
WITNESS = """\
#!/bin/sh
{ id; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; env; ls /proc/$$/fd; } >/tmp/witness.$1
exec %s "$@"
"""


@pytest.fixture(scope="module")
def slurm(ch_run: Path, may_lack: Callable[[], AbstractContextManager[None]]) -> Iterator[Cluster]:
    """Return a cluster whose nodes run the epilog."""
    text = (CHECKOUT / "plugins/epilog").read_text()
    files = {
        "epilog": text.replace("\nch_run=ch-run\n", "\nch_run=/etc/slurm/witness\n"),
        "witness": WITNESS % ch_run,
    }
    assert files["epilog"] != text
    cluster = Cluster(2, reveal=[cache_directory()], conf="Epilog=/etc/slurm/epilog\n", files=files)
    with ExitStack() as stack:
        with may_lack():
            stack.enter_context(cluster)
        yield cluster


@pytest.fixture(scope="module")
def squash(slurm: Cluster, image_tiny: Path) -> str:
    """Return an image file: one that needs a server, and so a keeper."""
    path = "/home/alice/tiny.sqfs"
    slurm.run(f"mksquashfs {image_tiny} {path} -noappend -quiet -no-progress", check=True)
    return path


def epilog(slurm: Cluster, job: object = JOB, uid: object = None, node: str = "n1") -> None:
    """Run the epilog as slurmd does."""
    owner = uid_of(slurm) if uid is None else uid
    result = slurm.root(node, ["env", f"SLURM_JOB_ID={job}", f"SLURM_JOB_UID={owner}", "/etc/slurm/epilog"])
    assert (result.stdout, result.stderr) == ("", "")


def uid_of(slurm: Cluster, user: str = "alice") -> int:
    """Return a user's number."""
    return int(slurm.run(["id", "-u"], user=user, check=True).stdout)


def place(slurm: Cluster, user: str = "alice") -> str:
    """Return where the user's ranks meet first."""
    return f"/dev/shm/chlaunch-{uid_of(slurm, user)}"


def listing(slurm: Cluster, directory: str, node: str = "n1") -> set[str]:
    """Return the names in a directory of the node."""
    found = slurm.root(node, ["find", directory, "-mindepth", "1", "-printf", "%f\\0"], check=False)
    return set(found.stdout.split("\0")) - {""}


def running(slurm: Cluster, name: str) -> list[str]:
    """Return the PIDs of the processes of that name on n1."""
    return slurm.root("n1", ["pgrep", "-x", name], check=False).stdout.split()


def await_true(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.03)


def step(slurm: Cluster, ch_run: Path, image: str, job: int) -> subprocess.Popen[str]:
    """Start a process of a job in a container on n1, outside Slurm, which can't end it."""
    variables = {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": "0"}
    words = [ch_run, "--join", image, "--", "sleep", "1000"]
    process = slurm.popen(words, node="n1", env=variables)
    await_true(lambda: any(name.startswith(f"{job}.") for name in listing(slurm, place(slurm))))
    assert process.poll() is None
    return process


def test_a_cancelled_job(slurm: Cluster, ch_run: Path, squash: str) -> None:
    home = slurm.home()
    rank = [ch_run, "--join", f"--bind={home}", f"--cd={home}", squash, "--", "sh", "-c"]
    srun = ["srun", "--mpi=none", "-w", "n1", "-n2", *rank]
    # One that Slurm loses sight of holds the image: its keeper and server stay when the ranks are killed.
    lost = slurm.popen(
        [*srun, "(setsid sleep 1000 >/dev/null 2>&1 &) ; echo $SLURM_JOB_ID >lost; exec sleep 1000"]
    )
    wait = "echo $SLURM_JOB_ID >other; until [ -e go ]; do sleep 0.1; done; ls /bin/sh"
    other = slurm.popen([*srun, wait], env={"CHLAUNCH_NO_HINTS": "1"})
    marks = {name: slurm.outside(f"{home}/{name}") for name in ("lost", "other")}
    await_true(lambda: all(mark.exists() and mark.read_text() for mark in marks.values()))
    await_true(lambda: len(running(slurm, "squashfuse_ll")) == len(running(slurm, "ch-run-keeper")) == 2)
    jobs = {name: mark.read_text().strip() for name, mark in marks.items()}
    assert {name.partition(".")[0] for name in listing(slurm, place(slurm))} == set(jobs.values())

    slurm.run(["scancel", "--signal=KILL", jobs["lost"]], check=True)
    finish(lost)
    await_true(lambda: jobs["lost"] not in slurm.run("squeue --noheader --format=%A").stdout.split())
    assert {name.partition(".")[0] for name in listing(slurm, place(slurm))} == {jobs["other"]}
    await_true(lambda: len(running(slurm, "squashfuse_ll")) == len(running(slurm, "ch-run-keeper")) == 1)

    slurm.outside(f"{home}/go").touch()
    result = finish(other)
    assert (result.stdout, result.stderr, result.returncode) == ("/bin/sh\n" * 2, "", 0)


def test_what_slurm_could_not_end(slurm: Cluster, ch_run: Path, squash: str) -> None:
    processes = [step(slurm, ch_run, squash, job) for job in (JOB, JOB + 1)]
    keepers = running(slurm, "ch-run-keeper")
    slurm.root("n1", ["kill", "-STOP", *keepers])  # neither can leave by itself
    assert len(keepers) == 2
    for _ in range(2):  # the second time there is nothing to do
        epilog(slurm)
        assert {name.partition(".")[0] for name in listing(slurm, place(slurm))} == {str(JOB + 1)}
        await_true(lambda: processes[0].poll() is not None)
        assert [process.poll() for process in processes] == [-signal.SIGKILL, None]
        await_true(lambda: len(running(slurm, "ch-run-keeper")) == len(running(slurm, "squashfuse_ll")) == 1)
    epilog(slurm, JOB + 1)
    await_true(lambda: not running(slurm, "ch-run-keeper") and not running(slurm, "squashfuse_ll"))
    assert [finish(process).returncode for process in processes] == [-signal.SIGKILL] * 2
    assert listing(slurm, place(slurm)) == set()


def test_it_is_the_user(slurm: Cluster) -> None:
    epilog(slurm, node="n2")  # which never saw the job
    seen = slurm.root("n2", ["cat", f"/tmp/witness.--clean-job={JOB}"]).stdout.splitlines()
    uid = uid_of(slurm)
    assert seen[0].startswith(f"uid={uid}(alice) gid={uid}(alice) groups={uid}(alice)")
    rights = dict(line.split(":\t") for line in seen if line.startswith(("Cap", "NoNewPrivs")))
    assert rights.pop("NoNewPrivs") == "1"
    assert set(rights.values()) == {"0" * 16}
    variables = {line.partition("=")[0] for line in seen if "=" in line and not line.startswith("uid=")}
    assert variables == {"PATH", "PWD"}
    assert not listing(slurm, "/dev/shm", "n2")


@pytest.mark.parametrize(
    ("job", "uid"),
    [("", None), ("0", None), ("1; touch /tmp/bad", None), ("-1", None), ("$(touch /tmp/bad)", None)]
    + [
        (JOB, uid) for uid in ("0", "", "00", "1001 0", "-1", "99999999999999", "root", "1001;touch /tmp/bad")
    ],
)
def test_numbers_that_are_none(slurm: Cluster, job: object, uid: object) -> None:
    slurm.root("n1", "rm -f /tmp/witness.*")
    epilog(slurm, job, uid)
    assert not [name for name in listing(slurm, "/tmp") if name == "bad" or name.startswith("witness")]


def test_names_that_are_not_the_jobs(slurm: Cluster) -> None:
    own = place(slurm)
    kept = {
        f"{JOB}.1-2",
        f"{JOB}1.0.1-2",
        f"{JOB}",
        f"x{JOB}.0.1-2",
        "77.0.1-2",
        f"{JOB}.0.link",
        f"{JOB}.0.dir",
    }
    gone = {
        f"{JOB}.0.1-2",
        f"{JOB}.$(touch bad).1-2",
        f"{JOB}.0.\n;`touch bad`",
        f"{JOB}..",
        f"{JOB}.0.empty",
    }
    slurm.run(["mkdir", "-p", "-m", "700", own, f"{own}/{JOB}.0.dir"], node="n1", check=True)
    for name in (kept | gone) - {f"{JOB}.0.link", f"{JOB}.0.dir", f"{JOB}.0.empty"}:
        # What is in it makes no sense, and counts a billion members.
        words = ["dd", "if=/dev/urandom", f"of={own}/{name}", "bs=4k", "count=1", "status=none"]
        slurm.run(words, node="n1", check=True)
    slurm.run(f"echo x >precious; : >{own}/{JOB}.0.empty; mkfifo {own}/{JOB}.0.fifo", node="n1", check=True)
    slurm.run(["ln", "-s", "/home/alice/precious", f"{own}/{JOB}.0.link"], node="n1", check=True)
    epilog(slurm)
    assert listing(slurm, own) == kept | {f"{JOB}.0.fifo"}
    assert slurm.outside("/home/alice/precious").read_text() == "x\n"
    assert not slurm.outside("/home/alice/bad").exists()
    slurm.root("n1", ["rm", "-r", own])


def test_a_place_that_a_stranger_made(slurm: Cluster) -> None:
    own = place(slurm)
    slurm.run(f"mkdir -m 700 kept; : >kept/{JOB}.0.1-2", check=True)
    slurm.run(["ln", "-s", "/home/alice/kept", own], node="n1", user="bob", check=True)
    epilog(slurm)
    assert listing(slurm, "/home/alice/kept") == {f"{JOB}.0.1-2"}
    slurm.run(f"rm {own}; mkdir -m 777 {own}; : >{own}/{JOB}.0.1-2", node="n1", user="bob", check=True)
    epilog(slurm)
    assert listing(slurm, own) == {f"{JOB}.0.1-2"}
    slurm.root("n1", ["rm", "-r", own])


def one_more(slurm: Cluster, before: int) -> bool:
    """Tell whether there are more processes with the keeper's name than before."""
    return len(running(slurm, "ch-run-keeper")) > before


def test_processes_that_look_like_ours(slurm: Cluster) -> None:
    script = "cp $(command -v sleep) ch-run-keeper; exec setsid ./ch-run-keeper 1000"
    kinds = {
        "another job's": ("alice", {"SLURM_JOB_ID": f"{JOB}0"}),
        "no job's": ("alice", {"OTHER": f"SLURM_JOB_ID={JOB}"}),
        "another user's": ("bob", {"SLURM_JOB_ID": str(JOB)}),
        "the job's": ("alice", {"SLURM_JOB_ID": str(JOB)}),
    }
    processes = {}
    for kind, (user, variables) in kinds.items():
        before = len(running(slurm, "ch-run-keeper"))
        processes[kind] = slurm.popen(script.replace("cp", "cp -n"), node="n1", user=user, env=variables)
        await_true(partial(one_more, slurm, before))
    epilog(slurm)
    assert finish(processes.pop("the job's")).returncode == -signal.SIGKILL
    assert {kind: process.poll() for kind, process in processes.items()} == dict.fromkeys(processes)
    slurm.root("n1", ["kill", "-KILL", *running(slurm, "ch-run-keeper")])
    for process in processes.values():
        finish(process)


def test_one_that_holds_a_lock(slurm: Cluster) -> None:
    own = place(slurm)
    name = f"{own}/{JOB}.0.1-2"
    script = f"mkdir -m 700 {own}; cp $(command -v flock) ch-run; exec ./ch-run --close {name} sleep 1000 >/dev/null 2>&1"
    holder = slurm.popen(script, node="n1", env={"SLURM_JOB_ID": str(JOB)})
    await_true(lambda: running(slurm, "ch-run") and listing(slurm, own))
    epilog(slurm)
    assert finish(holder).returncode == -signal.SIGKILL
    assert listing(slurm, own) == set()
