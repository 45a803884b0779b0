"""ch-doctor where there is a Slurm: on the login node, and as a job on a node."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from machine import CHECKOUT

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cluster import Cluster

CH_DOCTOR = CHECKOUT / ".venv/bin/ch-doctor"
STORAGE = {"CH_IMAGE_STORAGE": "/home/alice/storage"}


def rows_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of a report, by their names."""
    return {row["name"]: row for row in json.loads(done.stdout)["rows"]}


@pytest.mark.pmix
def test_login_node(cluster: Cluster, image_ompi5: Path) -> None:
    rows = rows_of(cluster.run([CH_DOCTOR, "--json", image_ompi5, "--", "mpirun"], env=STORAGE))
    assert [name for name, row in rows.items() if row["verdict"] == "problem"] == []
    assert re.search(r"pmix_v(\d) \(PMIx \1\.", rows["srun --mpi="]["found"])
    assert rows["MpiDefault"]["verdict"] == "warning"
    assert "export SLURM_MPI_TYPE=pmix" in rows["MpiDefault"]["remedy"]
    assert "SlurmdSpoolDir /var/spool/slurmd" in rows["Slurm directories"]["found"]
    assert "--mpi=pmix" in rows["ch-launch takes srun"]["found"]
    assert rows["memory, joined"]["verdict"] == "ok"


@pytest.mark.pmix
def test_the_users_own_default(cluster: Cluster) -> None:
    rows = rows_of(cluster.run([CH_DOCTOR, "--json"], env={**STORAGE, "SLURM_MPI_TYPE": "pmix"}))
    assert rows["MpiDefault"] == {**rows["MpiDefault"], "verdict": "ok", "found": "pmix"}
    rows = rows_of(cluster.run([CH_DOCTOR, "--json"], env={**STORAGE, "SLURM_MPI_TYPE": "pmix_v9"}))
    assert rows["MpiDefault"]["verdict"] == "problem"


def test_on_a_node(cluster: Cluster, image_mpich4: Path) -> None:
    job = cluster.run(["srun", "-n1", CH_DOCTOR, "--json", image_mpich4], env=STORAGE)
    rows = rows_of(job)
    assert [name for name, row in rows.items() if row["verdict"] == "problem"] == []
    assert rows["memory, joined"]["verdict"] == "ok"
    assert "--mpi=pmi2" in rows["ch-launch takes srun"]["found"]
    assert "can't start the ranks of MPICH" in rows["--ch-launcher=mpirun"]["found"]


def test_no_controller(cluster: Cluster) -> None:
    command = f"sed 's/^SlurmctldPidFile/SlurmctldPort=1\\nMessageTimeout=1\\n&/' /etc/slurm/slurm.conf >lost.conf; exec {CH_DOCTOR} --json"
    done = cluster.run(command, env={**STORAGE, "SLURM_CONF": "/home/alice/lost.conf"})
    rows = rows_of(done)
    assert done.returncode == 2
    assert rows["Slurm controller"]["verdict"] == "problem"
    assert "scontrol ping" in rows["Slurm controller"]["remedy"]


def test_no_configuration(cluster: Cluster) -> None:
    done = cluster.run([CH_DOCTOR, "--json"], env={**STORAGE, "SLURM_CONF": "/no/slurm.conf"})
    row = rows_of(done)["Slurm"]
    assert (done.returncode, row["verdict"]) == (2, "problem")
    assert "SLURM_CONF is /no/slurm.conf" in row["found"]
