"""ch-launch on a real Slurm with real MPI images: one world of all ranks, one user namespace a node, CMA."""

from __future__ import annotations

import re
import shlex
import shutil
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from machine import CHECKOUT, Machine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from cluster import Cluster

INIT = re.compile(r"^(\d+): init ok (\S+), (\d+) ranks, userns (\d+)$", re.MULTILINE)
EVEN = ["-N2", "-n4", "--ntasks-per-node=2"]
PROBE = ["python3", "probe.py", "--expect=4", "--require-cma"]


class Rank(NamedTuple):
    """What the probe says of a rank."""

    number: int
    host: str
    size: int
    userns: int


def world(job: subprocess.CompletedProcess[str]) -> list[Rank]:
    """Return the ranks of a job that must have ended well, in order."""
    assert job.returncode == 0, f"{job.stdout}{job.stderr}"
    found = (INIT.match(line) for line in job.stdout.splitlines())
    return sorted(Rank(int(r[1]), r[2], int(r[3]), int(r[4])) for r in found if r)


def assert_world(job: subprocess.CompletedProcess[str], layout: dict[str, int]) -> None:
    """Check that the job was one world with this many ranks on each node, and one user namespace a node."""
    ranks = world(job)
    size = sum(layout.values())
    assert [(rank.number, rank.size) for rank in ranks] == [(number, size) for number in range(size)]
    assert Counter(rank.host for rank in ranks) == layout
    assert len({(rank.host, rank.userns) for rank in ranks}) == len(layout)
    assert job.stdout.count("finalize ok") == size


@pytest.fixture(scope="session", params=["ompi4", "ompi5"])
def image_mpi(request: pytest.FixtureRequest) -> Path:
    """Return each of the MPI images."""
    path: Path = request.getfixturevalue(f"image_{request.param}")
    return path


@pytest.fixture(scope="session")
def slurm(cluster: Cluster) -> Cluster:
    """Return the two-node cluster, with the probe in alice's home."""
    return with_probe(cluster)


def with_probe(machine: Cluster) -> Cluster:
    """Put the probe into alice's home: a file of the user's, where jobs start."""
    shutil.copy(CHECKOUT / "chlaunch/probe.py", machine.outside("/home/alice/probe.py"))
    return machine


@pytest.mark.pmix
def test_srun(slurm: Cluster, ch_launch: Path, image_mpi: Path) -> None:
    job = slurm.run([ch_launch, *EVEN, image_mpi, "--", *PROBE])
    assert_world(job, {"n1": 2, "n2": 2})


@pytest.mark.pmix
def test_dry_run_prints_what_runs(slurm: Cluster, ch_launch: Path, image_mpi: Path) -> None:
    dry = slurm.run([ch_launch, "--ch-dry-run", *EVEN, image_mpi, "--", *PROBE], check=True)
    assert dry.stdout.count("\n") == 1
    assert shlex.split(dry.stdout)[0] == "srun"
    assert_world(slurm.run(dry.stdout), {"n1": 2, "n2": 2})


@pytest.mark.pmix
def test_uneven_layout(slurm: Cluster, ch_launch: Path, image_mpi: Path) -> None:
    job = slurm.run([ch_launch, "-N2", "-n4", "-m", "plane=3", image_mpi, "--", *PROBE])
    assert_world(job, {"n1": 3, "n2": 1})


@pytest.mark.pmix
def test_three_nodes(start_cluster: Callable[[int], Cluster], ch_launch: Path, image_ompi4: Path) -> None:
    allocate = ["salloc", "--quiet", "-N3", "-n3", "-c3"]
    launch = [
        ch_launch,
        "-n7",
        "-c1",
        "-m",
        "plane=3",
        image_ompi4,
        "--",
        "python3",
        "probe.py",
        "--expect=7",
    ]
    job = with_probe(start_cluster(3)).run([*allocate, *launch])
    assert_world(job, {"n1": 3, "n2": 3, "n3": 1})


@pytest.mark.pmix
def test_inside_an_allocation(slurm: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    job = slurm.run(["salloc", "--quiet", *EVEN, ch_launch, image_ompi4, "--", *PROBE])
    assert_world(job, {"n1": 2, "n2": 2})


@pytest.mark.pmix
def test_batch_script(slurm: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    line = shlex.join([str(ch_launch), str(image_ompi4), "--", *PROBE])
    slurm.outside("/home/alice/job.sh").write_text(f"#!/bin/sh\n{line}\n")
    slurm.run(["sbatch", "--quiet", "--wait", "--output=job.out", *EVEN, "job.sh"])
    job = slurm.run(["cat", "job.out"], check=True)
    assert_world(job, {"n1": 2, "n2": 2})


def test_the_hosts_mpirun(slurm: Cluster, ch_launch: Path, image_mpi: Path) -> None:
    options = ["--ch-launcher=mpirun", "-np", "4", "--oversubscribe"]
    job = slurm.run([ch_launch, *options, image_mpi, "--", *PROBE])
    version = slurm.run(["mpirun", "--version"], check=True).stdout.split()[3]
    if int(version.split(".")[0]) >= 5 and image_mpi.name.startswith("ompi4"):
        # Debian 12's Open MPI does not find the server of a newer mpirun; that must not pass unseen.
        assert (job.returncode, job.stdout) == (2, "")
        assert "can't start the ranks of Open MPI 4.1.4" in job.stderr
    else:
        assert_world(job, {"login": 4})


@pytest.mark.usefixtures("machine")  # the host can run one
def test_without_slurm_and_mpi_the_images_own_starts_the_ranks(ch_launch: Path, image_mpi: Path) -> None:
    with Machine(reveal=[image_mpi.parent]) as laptop:
        for command in ("srun", "mpirun", "mpiexec"):
            hide = f"for file in $(which -a {command}); do mount --bind /dev/null $(realpath $file); done"
            laptop.root(hide, check=False)
        shutil.copy(CHECKOUT / "chlaunch/probe.py", laptop.outside("/home/alice/probe.py"))
        job = laptop.run([ch_launch, "-n", "4", image_mpi, "--", *PROBE])
        assert_world(job, {"login": 4})


def test_a_job_starts_where_the_user_is(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    slurm.run("mkdir -p work; echo found >work/file", check=True)
    job = slurm.run(
        [ch_launch, "--ch-mpi=none", "-N2", image_tiny, "--", "sh", "-c", "pwd; cat file"],
        cwd="/home/alice/work",
    )
    assert sorted(job.stdout.split()) == ["/home/alice/work"] * 2 + ["found"] * 2


SITE = """
base = ["slurm-pmix"]
[[bind]]
path = "$NODE_DATA"
target = "/node/data"
reason = "a variable of the node, and a place that the image has not"
[[bind]]
path = "/no/such/path"
reason = "left out where it does not exist"
[[variable]]
name = "FROM_SITE"
value = "site's $HOME; `id`"
reason = "as it is"
[[variable]]
name = "BOTH_SAY"
value = "site"
reason = "the user's environment wins"
[[unset]]
variable = "OVERRULED"
reason = "this and the row below overrule the environment"
[[variable]]
name = "OVERRULED"
value = "site"
reason = "see above"
"""


def test_a_sites_rows_reach_the_ranks(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    slurm.outside("/home/alice/site.toml").write_text(SITE)
    slurm.run("mkdir -p data; echo found >data/file", check=True)
    said = "export NODE_DATA=/home/alice/data BOTH_SAY=user OVERRULED=user I_MPI_PMI_LIBRARY=/lib/libpmi2.so"
    shown = 'echo "$FROM_SITE|$BOTH_SAY|$OVERRULED|${I_MPI_PMI_LIBRARY-}"; cat /node/data/file'
    words = [ch_launch, "--ch-site=site.toml", "--ch-mpi=none", "-N2", image_tiny, "--", "sh", "-c", shown]
    job = slurm.run(f"{said}; {shlex.join(map(str, words))}", check=True)
    assert sorted(job.stdout.splitlines()) == ["found"] * 2 + ["site's $HOME; `id`|user|site|"] * 2


@pytest.mark.pmix
def test_our_own_files_by_the_systems_do_no_harm(slurm: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    etc = slurm.outside("/etc/chlaunch")
    etc.mkdir()
    (etc / "site.toml").write_text('base = ["slurm-pmix", "cray-ex", "infiniband"]')
    try:
        job = slurm.run([ch_launch, "--ch-explain", "-n2", image_ompi4, "--", *PROBE[:2], "--expect=2"])
    finally:
        shutil.rmtree(etc)
    assert len(world(job)) == 2
    for name in ("slurm-pmix", "cray-ex", "infiniband"):
        assert f"[site-configs/{name}.toml:" in job.stderr
    assert all(line.startswith("ch-launch: ") for line in job.stderr.splitlines())


def test_exit_codes_pass(slurm: Cluster, ch_launch: Path, image_tiny: Path) -> None:
    launch = [ch_launch, "--ch-mpi=none", "-n1", image_tiny, "--"]
    assert slurm.run([*launch, "sh", "-c", "exit 7"]).returncode == 7
    assert slurm.run([*launch, "no-such-command"]).returncode == 49


def test_sruns_own_error_reaches_the_user(slurm: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    job = slurm.run([ch_launch, "--ntaskz=4", image_ompi4, "--", "true"])
    assert job.returncode != 0
    assert "srun: unrecognized option '--ntaskz=4'" in job.stderr
