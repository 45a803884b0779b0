"""What the host's mpirun is: Open MPI's, or the MPICH family's Hydra; it is asked."""

import re
from dataclasses import dataclass
from typing import Literal

from chlaunch.slurm import ask

# It prints a line or two from its own files: 20 ms on a warm disk.
DEADLINE = 10.0

_OPEN_MPI = re.compile(r"\(Open MPI\) v?([0-9.]+)")
_HYDRA = re.compile(r"HYDRA build details:\s+Version:\s+([0-9.]+)")
_INTEL = re.compile(r"Intel\(R\) MPI Library for Linux\* OS, Version ([0-9.]+)")


@dataclass(frozen=True)
class Starter:
    """A host's mpirun. kind: of the wire-ups in our tables; empty if it was not asked, or is neither."""

    kind: Literal["", "mpirun", "hydra"] = ""
    version: str = ""
    title: str = ""


def starter(mpirun: str) -> Starter:
    """Ask mpirun (a path) what it is.

    Raises:
        SlurmError: it could not be run, or gave no answer.

    """
    return understood(*ask([mpirun, "--version"], DEADLINE, "--ch-launcher=srun or guest does without it"))


def understood(stdout: str, stderr: str) -> Starter:
    """Return what mpirun is by what ``mpirun --version`` printed."""
    text = stdout + stderr
    if found := _OPEN_MPI.search(text):
        return Starter("mpirun", found[1], f"Open MPI {found[1]}")
    if found := _INTEL.search(text):
        return Starter("hydra", found[1], f"Intel MPI {found[1]}")
    if found := _HYDRA.search(text):
        return Starter("hydra", found[1], f"Hydra {found[1]}")
    return Starter()
