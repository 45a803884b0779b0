"""Jobs that Slurm itself confines: a /tmp and /dev/shm of each job's own, and ranks bound to CPUs."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from cluster import Cluster
from images import cache_directory
from machine import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

EVEN = ["-N2", "-n4", "--ntasks-per-node=2"]
CONF = """\
JobContainerType=job_container/tmpfs
PrologFlags=Contain
TaskPlugin=task/affinity
"""
FILES = {"job_container.conf": "AutoBasePath=true\nBasePath=/var/spool/private\n"}
BOUND = "grep Cpus_allowed_list: /proc/self/status"
ENVIRONMENT = {"CHLAUNCH_CH_RUN": "/home/alice/ch-run"}
GONE_SECONDS = 10


@contextmanager
def on_one_cpu() -> Iterator[int]:
    """Have what is started stay on one CPU, but for what Slurm binds elsewhere; return how many there are.

    A job's mount namespace is kept by mounting it in the node's, which must be older. Linux 6.18 takes for the
    older one that with the lower number, but hands out numbers by CPU: of jobs whose namespace was made on
    another CPU than the node's, all failed for a while, then none.
    """
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield len(cpus)
    finally:
        os.sched_setaffinity(0, cpus)


@pytest.fixture(scope="module")
def slurm(may_lack: Callable[[], AbstractContextManager[None]], ch_run: Path) -> Iterator[Cluster]:
    """Return a cluster with two real CPUs a node, and the probe and ch-run, which may lie in /tmp, at home."""
    with ExitStack() as stack:
        with may_lack(), on_one_cpu() as cpus:
            cluster = stack.enter_context(Cluster(2, cpus, [cache_directory()], CONF, FILES))
        shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside("/home/alice/probe.py"))
        shutil.copy(ch_run, cluster.outside("/home/alice/ch-run"))
        yield cluster


@pytest.fixture(autouse=True)
def _clean(slurm: Cluster) -> Iterator[None]:
    """See that nothing stays of the jobs: no directory, and no process that could hold one."""
    yield
    deadline = time.monotonic() + GONE_SECONDS
    for node in slurm.node_names:
        while left := slurm.root(
            node, f"find /var/spool/private/{node} /dev/shm -mindepth 1; pgrep -au alice", check=False
        ).stdout:
            if time.monotonic() > deadline:
                raise AssertionError(f"{left}\n{slurm.logs}")
            time.sleep(0.03)


def launch(slurm: Cluster, ch_launch: Path, *words: object) -> tuple[int, str, str]:
    """Run ch-launch on two nodes; return its exit code and what it wrote."""
    job = slurm.run([ch_launch, *EVEN, *words], env=ENVIRONMENT)
    return job.returncode, job.stdout, job.stderr


def test_they_are_private(slurm: Cluster) -> None:
    for node in slurm.node_names:
        slurm.run("touch /tmp/of-the-node /dev/shm/of-the-node", node=node, check=True)
    job = slurm.run(["srun", *EVEN, "sh", "-c", f"ls /tmp /dev/shm; {BOUND}"], check=True)
    assert "of-the-node" not in job.stdout
    for node in slurm.node_names:
        slurm.run("rm /tmp/of-the-node /dev/shm/of-the-node", node=node, check=True)


@pytest.mark.pmix
@pytest.mark.parametrize("image", ["ompi4", "ompi5"])
def test_one_world(request: pytest.FixtureRequest, slurm: Cluster, ch_launch: Path, image: str) -> None:
    path = request.getfixturevalue(f"image_{image}")
    probe = ["python3", "probe.py", "--expect=4", "--require-cma"]
    code, output, errors = launch(slurm, ch_launch, path, "--", *probe)
    assert (code, output.count("finalize ok"), errors) == (0, 4, ""), output + errors


def test_one_world_by_pmi2(slurm: Cluster, ch_launch: Path, image_mpich4: Path) -> None:
    words = ["-N1", "-n2", image_mpich4, "--", "/opt/mpi4py/bin/python3", "probe.py", "--expect=2"]
    code, output, errors = launch(slurm, ch_launch, *words)
    assert (code, output.count("finalize ok")) == (0, 2), output + errors


@pytest.mark.parametrize("squashed", [False, True])
def test_ranks_keep_their_cpus_and_share_a_container(
    slurm: Cluster,
    ch_launch: Path,
    image_tiny: Path,
    squashed: bool,  # noqa: FBT001
) -> None:
    image: object = image_tiny
    if squashed:
        image = "/home/alice/tiny.sqfs"
        slurm.run(f"mksquashfs {image_tiny} {image} -noappend -quiet -no-progress", check=True)
    show = f"{BOUND}; readlink /proc/self/ns/mnt; hostname; touch /tmp/$SLURM_PROCID; sleep 0.2; ls /tmp"
    words = ["--ch-mpi=none", "--label", "--cpu-bind=cores", image, "--", "sh", "-c", show]
    code, output, errors = launch(slurm, ch_launch, *words)
    assert code == 0, errors
    ranks = [re.findall(rf"^{number}: (.*)$", output, re.MULTILINE) for number in range(4)]
    assert [rank[0] for rank in ranks] == ["Cpus_allowed_list:\t0", "Cpus_allowed_list:\t1"] * 2
    assert Counter(rank[2] for rank in ranks) == {"n1": 2, "n2": 2}
    assert len({tuple(rank[1:3]) for rank in ranks}) == 2  # one mount namespace a node
    assert [rank[3:] for rank in ranks] == [["0", "1"]] * 2 + [["2", "3"]] * 2
