"""ch-launch --ch-trace on a real Slurm: all ranks and phases are there, and nobody notices the parent."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from machine import CHECKOUT

from chlaunch.launch.trace import PHASES

if TYPE_CHECKING:
    from pathlib import Path

    from cluster import Cluster

PROBE = ["python3", "probe.py", "--expect=4", "--max-bytes=4096"]
LAUNCHES = {
    "srun": ["-N2", "-n4", "--ntasks-per-node=2"],
    "mpirun": ["--ch-launcher=mpirun", "-np", "4", "--oversubscribe"],
    "guest": ["--ch-launcher=guest", "-np", "4", "--oversubscribe"],
}


@pytest.fixture(scope="session")
def slurm(cluster: Cluster) -> Cluster:
    """Return the two-node cluster, with the probe in alice's home."""
    shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside("/home/alice/probe.py"))
    return cluster


def written(slurm: Cluster, name: str) -> tuple[list[dict[str, Any]], dict[str, Any], ET.Element]:
    """Return the spans and the summary in a trace, and its picture."""
    document = json.loads(slurm.outside(f"/home/alice/{name}.json").read_text())
    picture = ET.fromstring(slurm.outside(f"/home/alice/{name}.svg").read_text())  # noqa: S314  it is ours
    spans = [event for event in document["traceEvents"] if event["ph"] == "X"]
    return spans, document["otherData"]["summary"], picture


@pytest.mark.parametrize(
    "launcher", [pytest.param(name, marks=[pytest.mark.pmix] * (name == "srun")) for name in LAUNCHES]
)
def test_all_ranks_and_phases(slurm: Cluster, ch_launch: Path, image_ompi5: Path, launcher: str) -> None:
    hosts = ["n1", "n2"] if launcher == "srun" else ["login"]
    words = [ch_launch, f"--ch-trace={launcher}.json", *LAUNCHES[launcher], image_ompi5, "--", *PROBE]
    job = slurm.run(words)
    spans, summary, picture = written(slurm, launcher)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "4 of 4 ranks" in job.stderr
    assert (summary["ranks"], summary["expected"], summary["hosts"]) == (4, 4, len(hosts))
    there = {phase: row["ranks"] for phase, row in summary["phases"].items()}
    if launcher == "guest":  # all are in one container, which joins nobody
        assert there == {phase: 4 for phase in PHASES if phase not in ("waited", "joined")}
    else:
        assert there == {**dict.fromkeys(PHASES, 4), "entered": len(hosts), "mounted": len(hosts)}
    ranks = {(span["pid"], span["tid"]) for span in spans if span["name"] == "MPI_Init"}
    assert sorted(tid for _, tid in ranks) == [0, 1, 2, 3]
    assert {pid for pid, _ in ranks} == set(range(1, len(hosts) + 1))
    assert len(picture.findall("{http://www.w3.org/2000/svg}g")) == 4
    assert [row["host"] for row in summary["slowest_hosts"]] in (hosts, hosts[::-1])


def test_exit_codes_pass(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    launch = [ch_launch, "--ch-trace=t.json", "--ch-mpi=none", "-n1", image_tiny, "--"]
    assert slurm.run([*launch, "sh", "-c", "exit 7"]).returncode == 7
    refused = slurm.run(
        [ch_launch, "--ch-trace=t.json", "--ch-mpi=none", "--ntaskz=4", image_tiny, "--", "true"]
    )
    assert "srun: unrecognized option '--ntaskz=4'" in refused.stderr
    assert refused.returncode != 0
    assert "no rank reported" in refused.stderr


def test_sigterm(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    """It ends the job, with a trace as without."""
    codes = []
    for words in ([], ["--ch-trace=t.json"]):
        launch = [ch_launch, *words, "--ch-mpi=none", "-n1", image_tiny, "--"]
        script = ["sh", "-c", 'echo $$; exec "$@"', "sh", *launch, "sh", "-c", "echo ready; sleep 60"]
        with slurm.popen(script) as job:
            assert job.stdout is not None
            pid = job.stdout.readline().strip()
            assert job.stdout.readline() == "ready\n"
            slurm.run(["kill", pid], check=True)
            errors = job.communicate(timeout=20)[1]
        assert "srun: forcing job termination" in errors
        codes.append(job.returncode)
    assert codes[0] == codes[1] != 0


class Terminal:
    """A terminal with a command in its foreground."""

    def __init__(self, slurm: Cluster, command: list[object]) -> None:
        """Start the command as alice."""
        self.ours, its = pty.openpty()
        words = ["setsid", "--ctty", "--wait", *command]
        self.job = slurm.popen(words, stdin=its, stdout=its, stderr=its)
        self.seen = ""
        os.close(its)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.ours, keys)

    def await_text(self, text: str) -> None:
        """Wait until text is on the screen."""
        while text not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], 20)
            assert ready, self.seen
            self.seen += os.read(self.ours, 1000).decode()

    def end(self) -> int:
        """Return the command's exit code."""
        code = self.job.wait(20)
        os.close(self.ours)
        return code


def test_one_key_is_one_signal(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    """A second SIGINT within a second makes srun abort the job; the terminal has sent the first to it, too."""
    words = [ch_launch, "--ch-trace=t.json", "--ch-mpi=none", "-n1", image_tiny]
    terminal = Terminal(slurm, [*words, "--", "sh", "-c", "echo ready; read line; echo got $line"])
    terminal.await_text("ready")
    terminal.type(b"\x03")
    terminal.await_text("one more within 1 sec to abort")
    terminal.type(b"hello\n")
    terminal.await_text("1 of 1 ranks")
    assert terminal.end() == 0
    assert "got hello" in terminal.seen


def test_a_terminal_for_the_task(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    words = [ch_launch, "--ch-trace=t.json", "--ch-mpi=none", "-n1", "--pty", image_tiny]
    terminal = Terminal(slurm, [*words, "--", "sh", "-c", "test -t 0 && echo is one; read line; exit $line"])
    terminal.await_text("is one")
    terminal.type(b"5\n")
    terminal.await_text("1 of 1 ranks")
    assert terminal.end() == 5
