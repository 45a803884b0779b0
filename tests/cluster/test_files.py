"""Image files under a real srun: one server a node and step, which leaves with the step, however that ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from space import finish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cluster import Cluster

SERVERS = "pgrep -f '^squashfuse_ll'; pgrep -x ch-run-keeper"


@pytest.fixture(scope="module")
def squashfs(cluster: Cluster, image_tiny: Path) -> str:
    """Return the small image as a SquashFS file on the shared file system."""
    path = "/home/alice/tiny.sqfs"
    make = f"mksquashfs {image_tiny} {path} -comp zstd -noappend -quiet -no-progress"
    cluster.run(make, check=True, timeout=120)
    return path


@pytest.fixture(scope="module")
def squashfs_mpi(cluster: Cluster, image_ompi4: Path) -> str:
    """Return the image with Open MPI 4 as a SquashFS file."""
    path = "/home/alice/ompi4.sqfs"
    compress = "-comp zstd -Xcompression-level 1"
    make = f"mksquashfs {image_ompi4} {path} {compress} -noappend -quiet -no-progress"
    cluster.run(make, check=True, timeout=300)
    return path


def servers(cluster: Cluster) -> int:
    """Return how many servers and keepers there are on the nodes."""
    return sum(len(cluster.run(SERVERS, node=node).stdout.split()) for node in ("n1", "n2"))


def await_servers(cluster: Cluster, count: int) -> None:
    """Wait until there are so many."""
    for _ in range(300):
        if servers(cluster) == count:
            return
        time.sleep(0.02)
    raise AssertionError(cluster.run("ps axf", node="n1").stdout)


def await_ranks(cluster: Cluster, count: int) -> None:
    """Wait until so many ranks on n1 have become their command, sleep."""
    for _ in range(300):
        if len(cluster.run("pgrep -f '^sleep 100$'", node="n1").stdout.split()) == count:
            return
        time.sleep(0.02)
    raise AssertionError(cluster.run("ps axf", node="n1").stdout)


def state(cluster: Cluster) -> list[str]:
    """Return the mounts and the user's processes of both nodes."""
    command = "cat /proc/self/mounts; exec pgrep -u alice -l"  # nothing of its own: that comes and goes
    return [cluster.run(command, node=node).stdout for node in ("n1", "n2")]


def test_one_server_while_ranks_come_and_go(cluster: Cluster, ch_run: Path, squashfs: str) -> None:
    """The first rank ends at once, the last much later; all see the same files."""
    words = ["srun", "-N1", "-n8", "-w", "n1", "--mpi=pmi2", str(ch_run), "--join", squashfs, "--"]
    script = "sleep 0.$((SLURM_PROCID * 2)); ls /usr/bin | wc -l"
    job = cluster.popen([*words, "sh", "-c", script])
    await_servers(cluster, 2)
    result = finish(job)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.split()
    assert (len(lines), len(set(lines))) == (8, 1)
    await_servers(cluster, 0)


def test_two_nodes(cluster: Cluster, ch_run: Path, squashfs: str) -> None:
    words = [
        "srun",
        "-N2",
        "-n4",
        "--ntasks-per-node=2",
        "--mpi=none",
        str(ch_run),
        "-q",
        "--join",
        squashfs,
        "--",
    ]
    job = cluster.popen([*words, "sh", "-c", "sleep 1; readlink /proc/self/ns/mnt"])
    await_servers(cluster, 4)
    assert len(set(finish(job).stdout.split())) in (1, 2)  # inodes of two machines may be equal
    await_servers(cluster, 0)


@pytest.mark.pmix
def test_mpi_from_a_file(cluster: Cluster, ch_launch: Path, squashfs_mpi: str) -> None:
    """The main job, from an image file: one world, big messages by cross-memory attach."""
    cluster.run(
        ["cp", "--remove-destination", str(ch_launch.parents[2] / "chlaunch/probe.py"), "."], check=True
    )
    words = ["-N2", "-n4", "--ntasks-per-node=2", "--mpi=pmix", squashfs_mpi, "--"]
    probe = ["python3", "probe.py", "--expect=4", "--require-cma"]
    result = cluster.run([str(ch_launch), *words, *probe], timeout=120)
    assert result.returncode == 0, result
    assert result.stdout.count("init ok") == 4
    await_servers(cluster, 0)


CANCEL = "scancel $(squeue --noheader --format=%i)"
ENDINGS: dict[str, Callable[[Cluster, str], object]] = {
    "scancel": lambda cluster, _: cluster.run(CANCEL, check=True),
    "kill -9 of the ranks": lambda cluster, node: cluster.run(
        "pkill -9 -f '^sleep 100$'", node=node, check=True
    ),
    "kill -9 of the step": lambda cluster, node: cluster.root(node, "pkill -9 -f '^slurmstepd: '"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left(cluster: Cluster, ch_run: Path, squashfs: str, ending: str) -> None:
    """No server, keeper, mount or process after the job is stopped in the middle."""
    before = state(cluster)
    words = ["srun", "-N1", "-n4", "-w", "n1", "--mpi=none", str(ch_run), "-q", "--join", "-W", squashfs]
    job = cluster.popen([*words, "--", "sleep", "100"])
    await_ranks(cluster, 4)
    ENDINGS[ending](cluster, "n1")
    if ending == "kill -9 of the step":
        cluster.run("pkill -9 -f '^sleep 100$'", node="n1")  # proctrack/linuxproc: nobody is left to end them
        cluster.run(CANCEL)
    finish(job)  # srun calls even that last ending a success
    await_servers(cluster, 0)
    for _ in range(200):
        if state(cluster) == before:
            return
        time.sleep(0.05)
    assert state(cluster) == before


def test_killed_server_ends_the_step(cluster: Cluster, ch_run: Path, squashfs: str) -> None:
    """All ranks of the node end, at once, and one line says why."""
    words = ["srun", "-N1", "-n4", "-w", "n1", "--mpi=none", str(ch_run), "-q", "--join", squashfs]
    job = cluster.popen([*words, "--", "sleep", "100"])
    await_ranks(cluster, 4)
    cluster.run("pkill -9 -f '^squashfuse_ll'", node="n1", check=True)
    result = finish(job, timeout=30)
    assert result.returncode == 137
    assert result.stderr.count("the image's file server died") == 1
    assert "[CH-0075]" in result.stderr
    await_servers(cluster, 0)
