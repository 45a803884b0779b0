"""Launch knowledge at work: what would go wrong is refused, said or set right, on a real Slurm."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from machine import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from cluster import Cluster

PROBE = ["python3", "probe.py", "--expect=4"]
EVEN = ["-N2", "-n4", "--ntasks-per-node=2"]
VADER = "OMPI_MCA_btl_vader_single_copy_mechanism"


@pytest.fixture(scope="module", autouse=True)
def _probe(cluster: Cluster) -> None:
    """Put the probe where jobs start."""
    shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside("/home/alice/probe.py"))


def test_no_silent_singletons(cluster: Cluster, ch_launch: Path, image_ompi5: Path) -> None:
    start = time.monotonic()
    job = cluster.run([ch_launch, "-n4", "--mpi=none", image_ompi5, "--", *PROBE])
    assert time.monotonic() - start < 1.5
    assert (job.returncode, job.stdout) == (2, "")
    error, hint = job.stderr.splitlines()
    assert "the image speaks Open MPI 5.0.7, which needs --mpi=pmix" in error
    assert "leave --mpi=none out" in hint
    answer = cluster.run([CHECKOUT / ".venv/bin/ch-doctor", "explain", job.stderr])
    assert answer.returncode == 0


def test_a_slurm_without_pmix(
    cluster: Cluster, ch_launch: Path, image_ompi5: Path, image_mpich4: Path
) -> None:
    """Debian's Slurm 26.05 is so built; of another, a configuration that names a directory without the plugin."""
    (plugins,) = re.findall(r"^PluginDir\s*= (.*)$", cluster.run("scontrol show config").stdout, re.MULTILINE)
    cluster.run(
        f"mkdir plugins; ln -s {plugins}/*.so plugins; rm -f plugins/mpi_pmix*;"
        " (cat /etc/slurm/slurm.conf; echo PluginDir=/home/alice/plugins) >without.conf",
        check=True,
    )
    without = {"SLURM_CONF": "/home/alice/without.conf"}
    assert "pmix" not in cluster.run(["srun", "--mpi=list"], env=without, check=True).stdout
    job = cluster.run([ch_launch, "-n4", image_ompi5, "--", *PROBE], env=without)
    assert (job.returncode, job.stdout) == (2, "")
    error, hint = job.stderr.splitlines()
    assert "the image speaks Open MPI 5.0.7, which needs --mpi=pmix; this srun offers none, " in error
    assert "--ch-launcher=guest" in hint
    words = ["-N1", "-n2", image_mpich4, "--", "/opt/mpi4py/bin/python3", "probe.py", "--expect=2"]
    job = cluster.run([ch_launch, *words], env=without)
    assert (job.returncode, job.stdout.count("finalize ok")) == (0, 2), job.stderr


def test_what_the_user_insists_on_is_done(cluster: Cluster, ch_launch: Path, image_ompi5: Path) -> None:
    for words in (["--ch-mpi=force:none"], ["--mpi=none", "--ch-mpi=none"]):
        job = cluster.run([ch_launch, *words, "-n2", image_ompi5, "--", "python3", "probe.py", "--expect=1"])
        assert job.returncode == 0, job.stderr
        assert job.stdout.count(", 1 ranks,") == 2
    job = cluster.run([ch_launch, "--mpi=none", "-n2", image_ompi5, "--", "hostname"])
    assert (job.returncode, job.stdout.split()) == (0, ["n1", "n1"])


@pytest.mark.pmix
def test_without_the_users_environment(cluster: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    job = cluster.run([ch_launch, "--export=NONE", *EVEN, image_ompi4, "--", *PROBE, "--require-cma"])
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("finalize ok") == 4


@pytest.mark.pmix
@pytest.mark.parametrize("image", ["ompi4", "ompi5"])
def test_a_tmp_of_ones_own(
    request: pytest.FixtureRequest, cluster: Cluster, ch_launch: Path, image: str
) -> None:
    path = request.getfixturevalue(f"image_{image}")
    cluster.run("mkdir -p tmp", check=True)
    for words, env in ((["--ch-private-tmp"], {}), ([], {"TMPDIR": "/home/alice/tmp"})):
        job = cluster.run([ch_launch, *words, *EVEN, path, "--", *PROBE, "--require-cma"], env=env)
        assert job.returncode == 0, job.stderr
        assert (job.stdout.count("finalize ok"), job.stderr) == (4, "")


def test_what_a_user_set_by_hand(cluster: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    line = [ch_launch, "--ch-no-join", "-N1", "-n2", image_ompi4, "--"]
    job = cluster.run([*line, "printenv", VADER], env={VADER: "cma"})
    assert set(job.stdout.split()) == {"cma"}
    assert f"warning: {VADER}=cma (environment): asked for by name" in job.stderr
    assert cluster.run([*line, "printenv", VADER]).stdout.split() == ["none", "none"]
    joined = [word for word in line if word != "--ch-no-join"]
    assert cluster.run([*joined, "printenv", VADER]).stdout == ""
    dry = cluster.run([*line[:1], "--ch-dry-run", *line[1:], "true"], env={VADER: "cma"})
    assert f"--env-default={VADER}=none" in shlex.split(dry.stdout)


@pytest.mark.pmix
def test_explain_tells_reason_and_source(cluster: Cluster, ch_launch: Path, image_ompi4: Path) -> None:
    job = cluster.run(
        [ch_launch, "--ch-explain", "--ch-dry-run", "--ch-no-join", image_ompi4, "--", "python3"]
    )
    rows = [line for line in job.stderr.splitlines() if "[flavours/" in line]
    for what, file in (
        (f"{VADER}=none", "openmpi"),
        ("UCX_POSIX_USE_PROC_LINK=n", "ucx"),
        ("--mpi=pmix", "openmpi"),
    ):
        assert any(f"ch-launch: {what}: " in row and f"[flavours/{file}.toml:" in row for row in rows), what


def test_ids_of_ones_own(cluster: Cluster, ch_launch: Path, image_ompi4: Path, image_mpich4: Path) -> None:
    job = cluster.run([ch_launch, "--ch-uid=0", "-n2", image_ompi4, "--", "python3", "probe.py"])
    assert (job.returncode, job.stdout) == (2, "")
    python = "/opt/mpi4py/bin/python3"
    job = cluster.run(
        [ch_launch, "--ch-uid=0", "-N1", "-n2", image_mpich4, "--", python, "probe.py", "--expect=2"]
    )
    assert job.returncode == 0, job.stderr
