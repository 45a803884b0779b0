"""What Slurm said, in texts captured from real ones, and where its configuration is looked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from chlaunch import slurm
from chlaunch.errors import SlurmError
from chlaunch.slurm import offers

if TYPE_CHECKING:
    from pathlib import Path

# Debian 12's Slurm 22.05.8
SLURM_22 = """\
MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
\tpmi2
specific pmix plugin versions available: pmix_v4
"""
# Slurm 24.05 with two PMIx
SLURM_24 = """\
MPI plugin types are...
\tnone
\tpmix
\tpmi2
\tcray_shasta
specific pmix plugin versions available: pmix_v4,pmix_v5
"""
# Ubuntu 18.04's Slurm 17.11 with PMIx 3 (NVIDIA/deepops issue 494)
SLURM_17 = """\
srun: MPI types are...
srun: none
srun: openmpi
srun: pmi2
srun: pmix_v3
srun: pmix
"""
# Debian 12's without a configuration
NO_CONFIGURATION = """\
srun: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
srun: error: fetch_config: DNS SRV lookup failed
srun: error: _establish_config_source: failed to fetch config
srun: fatal: Could not establish a configuration source
"""


@pytest.mark.parametrize(
    ("text", "plugins"),
    [
        (SLURM_22, ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4")),
        (SLURM_24, ("none", "pmix", "pmi2", "cray_shasta", "pmix_v4", "pmix_v5")),
        (SLURM_17, ("none", "openmpi", "pmi2", "pmix_v3", "pmix")),
        (NO_CONFIGURATION, ()),
        ("", ()),
    ],
)
def test_plugins(text: str, plugins: tuple[str, ...]) -> None:
    assert slurm.mpi_plugins(text) == plugins


def test_stdout_or_stderr() -> None:
    assert slurm.understood(SLURM_22, "").plugins == slurm.understood("", SLURM_22).plugins
    assert slurm.understood("", SLURM_17).plugins[-1] == "pmix"


@pytest.mark.parametrize(
    ("stderr", "message"),
    [(NO_CONFIGURATION, "establish a configuration source"), ("", "it printed nothing")],
)
def test_an_answer_without_a_plugin(stderr: str, message: str) -> None:
    with pytest.raises(SlurmError, match=message) as caught:
        slurm.understood("", stderr)
    assert "--ch-mpi=TYPE" in caught.value.hint


def test_no_answer() -> None:
    start = time.monotonic()
    with pytest.raises(SlurmError, match=r"sleep 60 gave no answer in 0\.2 s"):
        slurm.ask(["sleep", "60"], 0.2)
    assert time.monotonic() - start < 10


def test_no_srun(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="can't execute"):
        slurm.offer(str(tmp_path / "srun"))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("slurm-wlm 22.05.8", "22.05.8"),
        ("slurm 24.11.5", "24.11.5"),
        ("slurm 23.11.4-1.2rc1", "23.11.4-1.2rc1"),
    ],
)
def test_version(tmp_path: Path, said: str, version: str) -> None:
    srun = tmp_path / "srun"
    srun.write_text(f"#!/bin/sh\n[ $1 = --mpi=list ] && printf 'MPI\\n\\tpmix\\n' || echo '{said}'\n")
    srun.chmod(0o755)
    assert slurm.offer(str(srun), with_version=True) == slurm.Offer(("pmix",), "srun --mpi=list", version)
    assert slurm.offer(str(srun)).version == ""


def test_a_version_that_is_none(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n[ $1 = --mpi=list ] && printf 'MPI\\n\\tpmix\\n' || echo ours\n")
    srun.chmod(0o755)
    with pytest.raises(SlurmError, match="names no version: ours"):
        offers.version(str(srun))
    assert slurm.offer(str(srun), with_version=True).plugins == ("pmix",)


def test_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun = tmp_path / "bin/srun"
    monkeypatch.setattr(offers, "CONFIGURATIONS", ())
    assert slurm.configuration(str(srun), {}) is None
    (tmp_path / "etc").mkdir()
    own = tmp_path / "etc/slurm.conf"
    own.touch()
    assert slurm.configuration(str(srun), {}) == str(own)
    assert slurm.configuration(str(srun), {"SLURM_CONF": "/nowhere"}) is None
    assert slurm.configuration("/usr/bin/srun", {"SLURM_CONF": str(own)}) == str(own)


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("JobContainerType=job_container/tmpfs", True),
        ("  jobcontainertype = job_container/tmpfs # each job", True),
        ("NamespaceType=namespace/tmpfs", True),
        ("#JobContainerType=job_container/tmpfs", False),
        ("JobContainerType=job_container/none", False),
        ("", False),
    ],
)
def test_a_tmp_of_each_job(tmp_path: Path, line: str, private: bool) -> None:  # noqa: FBT001
    path = tmp_path / "slurm.conf"
    path.write_text(f"ClusterName=test\n{line}\nSlurmUser=root\n")
    assert slurm.has_job_tmp(str(path)) is private
    assert slurm.has_job_tmp(str(tmp_path / "none")) is False
