"""`ch-run --join` under a real srun: the ranks of a node share one container, and jobs do not mix."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from space import finish

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from cluster import Cluster

# Says where the rank is, then waits until $1 ranks have come to this: those who join need somebody alive.
MEET = """\
echo "$SLURM_JOB_ID.$SLURM_STEP_ID $(hostname) $(readlink /proc/self/ns/user) $(readlink /proc/self/ns/mnt)"
mkdir -p meet.$2
: >meet.$2/$SLURM_JOB_ID.$SLURM_STEP_ID.$SLURM_PROCID
until [ $(ls meet.$2 | wc -l) -ge $1 ]; do sleep 0.05; done
"""


class Rank(NamedTuple):
    """What one rank wrote."""

    step: str
    host: str
    user: str
    mount: str


class Meeting:
    """A number of ranks, of one job or several, that are all alive at the same time."""

    def __init__(self, cluster: Cluster, ch_run: Path, name: str) -> None:
        """Put the ranks' script where every user can read it and meet."""
        self.cluster = cluster
        self.ch_run = ch_run
        self.name = name
        self.directory = f"/home/meeting-{name}"
        cluster.root(None, ["install", "-d", "-m", "1777", self.directory])
        cluster.outside(f"{self.directory}/meet.sh").write_text(f"umask 0\n{MEET}")

    def rank(self, image: Path, ranks: int) -> list[str]:
        """Return the command of one rank out of `ranks`."""
        options = ["--join", f"--bind={self.directory}", f"--cd={self.directory}"]
        return [str(self.ch_run), *options, str(image), "--", "sh", "meet.sh", str(ranks), self.name]

    def start(self, srun: str, image: Path, ranks: int, user: str = "alice") -> subprocess.Popen[str]:
        """Start a job of some of the `ranks` by the command line `srun`."""
        command = [*srun.split(), "--mpi=none", *self.rank(image, ranks)]
        return self.cluster.popen(command, user=user, env={"CHLAUNCH_NO_HINTS": "1"})


def ranks_of(job: subprocess.Popen[str]) -> list[Rank]:
    """Return what the job's ranks wrote, when all have ended well."""
    result = finish(job)
    assert (result.returncode, result.stderr) == (0, "")
    return [Rank(*line.split()) for line in result.stdout.splitlines()]


@pytest.fixture
def meeting(cluster: Cluster, ch_run: Path, request: pytest.FixtureRequest) -> Meeting:
    """Return a meeting on the two-node cluster."""
    return Meeting(cluster, ch_run, request.node.name)


def test_ranks_of_a_node_share_a_namespace(cluster: Cluster, ch_run: Path, image_tiny: Path) -> None:
    payload = "sleep 1; readlink /proc/self/ns/user"
    command = f"srun -N1 -n3 --mpi=none {ch_run} --join {image_tiny} -- sh -c {shlex.quote(payload)}"
    for _ in range(2):  # what the first leaves behind does not bother the second
        inodes = cluster.run(command, check=True).stdout.split()
        assert len(inodes) == 3
        assert len(set(inodes)) == 1


@pytest.mark.parametrize(
    ("srun", "layout"),
    [
        ("srun -N2 -n4 --ntasks-per-node=2", {"n1": 2, "n2": 2}),
        ("srun -N2 -n4", {"n1": 3, "n2": 1}),
        ("salloc --quiet -N3 -n3 -c4 srun -n11 -c1 -m plane=4", {"n1": 4, "n2": 4, "n3": 3}),
    ],
)
def test_layouts(
    start_cluster: Callable[[int], Cluster],
    ch_run: Path,
    image_tiny: Path,
    srun: str,
    layout: dict[str, int],
) -> None:
    ranks = sum(layout.values())
    meeting = Meeting(start_cluster(len(layout)), ch_run, f"layout-{ranks}-{layout['n1']}")
    seen = ranks_of(meeting.start(srun, image_tiny, ranks))
    assert Counter(rank.host for rank in seen) == layout
    assert len({(rank.host, rank.user, rank.mount) for rank in seen}) == len(layout)


@pytest.mark.parametrize("users", [("alice", "alice"), ("alice", "bob")])
def test_jobs_on_one_node_do_not_mix(meeting: Meeting, image_tiny: Path, users: tuple[str, str]) -> None:
    jobs = [meeting.start("srun -w n1 -n3", image_tiny, 6, user) for user in users]
    first, second = (set(ranks_of(job)) for job in jobs)
    assert len(first) == len(second) == 1  # three equal ranks
    one, other = first.pop(), second.pop()
    assert one.step.endswith(".0")
    assert other.step.endswith(".0")
    assert one.user != other.user
    assert one.mount != other.mount


def test_steps_of_one_job_do_not_mix(meeting: Meeting, image_tiny: Path) -> None:
    rank = shlex.join(meeting.rank(image_tiny, 4))
    step = f"srun --mpi=none --overlap -n2 {rank}"
    command = ["salloc", "--quiet", "-w", "n1", "-n2", "sh", "-c", f"{step} & {step} & wait"]
    seen = ranks_of(meeting.cluster.popen(command, env={"CHLAUNCH_NO_HINTS": "1"}))
    assert len(seen) == 4
    assert len({(rank.step, rank.user) for rank in seen}) == 2
    assert len({rank.user for rank in seen}) == 2


def test_two_images_in_one_step(meeting: Meeting, image_tiny: Path, image_ompi4: Path) -> None:
    lines = [
        f"{tasks} {shlex.join(meeting.rank(image, 4))}\n"
        for tasks, image in (("0-1", image_tiny), ("2-3", image_ompi4))
    ]
    meeting.cluster.outside(f"{meeting.directory}/programs").write_text("".join(lines))
    command = ["srun", "--mpi=none", "-N1", "-n4", "--multi-prog", f"{meeting.directory}/programs"]
    seen = ranks_of(meeting.cluster.popen(command, env={"CHLAUNCH_NO_HINTS": "1"}))
    assert len(seen) == 4
    assert len({rank.user for rank in seen}) == 1
    assert Counter(rank.mount for rank in seen).most_common(2)[0][1] == 2
    assert len({rank.mount for rank in seen}) == 2


def test_hint_of_singletons(cluster: Cluster, ch_run: Path, image_tiny: Path) -> None:
    command = ["srun", "--mpi=none", "-n3", ch_run, image_tiny, "--", "true"]
    job = cluster.run(command, check=True)
    assert job.stderr.count("hint: several tasks, but srun gives no PMI: 3: ") == 1
    assert cluster.run(command, check=True, env={"CHLAUNCH_NO_HINTS": "1"}).stderr == ""


@pytest.mark.parametrize("kind", ["pmi2", pytest.param("pmix", marks=pytest.mark.pmix)])
def test_no_hint_where_there_is_a_pmi(cluster: Cluster, ch_run: Path, image_tiny: Path, kind: str) -> None:
    command = ["srun", f"--mpi={kind}", "-n3", ch_run, image_tiny, "--", "true"]
    assert cluster.run(command, check=True).stderr == ""
