"""Where am I: on a login node, in an allocation, in a batch script, in a step, under mpirun, on a laptop."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chlaunch import native, slurm
from chlaunch.launch.devices import Devices
from chlaunch.launch.starter import Starter

Place = Literal["plain", "allocation", "batch", "step", "mpirun"]

# Steps that are no parallel job but a shell in an allocation: batch script, interactive and extern step (the
# numbers that Slurm's slurm_protocol_defs gives them: NO_VAL - 4 and so on, seen in SLURM_STEP_ID).
SHELL_STEPS = ("4294967290", "4294967291", "4294967292")

# Where other batch systems say which hosts a job has: PBS, LSF, Grid Engine.
HOST_FILES = ("PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "PE_HOSTFILE")

# Who tells how many ranks the world has that we are one of, innermost launcher first.
WORLD_SIZES: tuple[tuple[Place, str], ...] = (
    ("mpirun", "OMPI_COMM_WORLD_SIZE"),
    ("step", "SLURM_STEP_NUM_TASKS"),
    ("mpirun", "PMI_SIZE"),
)


@dataclass(frozen=True)
class Context:
    """Facts about the submitting side. Paths are of this host; None where there is no such thing.

    place: where this command runs; world: how many ranks the job has that it is one of (1 for a shell).
    configuration: the slurm.conf that srun will read; job_tmp: by it, each job has a /tmp of its own.
    mpirun: the host's, or its mpiexec; starter: what that is. mpi_type: the user's own $SLURM_MPI_TYPE,
    srun's default for --mpi. nodes: of the allocation, 1 if there is none, 0 if they are not counted.
    variables: this command's environment. devices: what was asked for, here. trace: where the times of this
    launch are listened for, as ch-run's --trace has it.
    """

    ch_run: str
    place: Place = "plain"
    world: int = 1
    home: str | None = None
    directory: str | None = None
    tmpdir: str | None = None
    srun: str | None = None
    configuration: str | None = None
    named_configuration: str | None = None
    job_tmp: bool = False
    mpirun: str | None = None
    starter: Starter = field(default_factory=Starter)
    mpi_type: str | None = None
    nodes: int = 1
    uid: int = 0
    gid: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=Devices)
    trace: str | None = None


def read(environment: Mapping[str, str], srun: str | None = None) -> Context:
    """Return the facts, from the environment and a few looks at files. srun: the one that asks, if one does.

    Raises:
        NativeError: our ch-run is not installed.

    """
    place, world = where(environment)
    search_path = environment.get("PATH", os.defpath)
    srun = srun or shutil.which("srun", path=search_path)
    mpirun = shutil.which("mpirun", path=search_path) or shutil.which("mpiexec", path=search_path)
    home = environment.get("HOME", "")
    configuration = slurm.configuration(srun, environment) if srun else None
    return Context(
        ch_run=native.ch_run(environment),
        place=place,
        world=world,
        home=home if home.startswith("/") and Path(home).is_dir() else None,
        directory=_directory(environment),
        tmpdir=environment.get("TMPDIR") or None,
        srun=srun,
        configuration=configuration,
        named_configuration=environment.get("SLURM_CONF") or None,
        job_tmp=configuration is not None and slurm.has_job_tmp(configuration),
        mpirun=mpirun,
        # A step has srun's own choice in the variable (mpi_g_client_init), which nobody asked for.
        mpi_type=None if place == "step" else environment.get("SLURM_MPI_TYPE") or None,
        nodes=_nodes(environment),
        uid=os.geteuid(),
        gid=os.getegid(),
        variables=environment,
    )


def where(environment: Mapping[str, str]) -> tuple[Place, int]:
    """Return where a process with this environment runs, and the size of its world (sbatch(1), mpirun(1))."""
    step = environment.get("SLURM_STEP_ID", "")
    in_step = step.isdecimal() and step not in SHELL_STEPS
    for place, variable in WORLD_SIZES:
        size = environment.get(variable, "")
        if size.isdecimal() and int(size) > 1 and (place == "mpirun" or in_step):
            return place, int(size)
    if in_step:
        return "step", 1
    if environment.get("SLURM_JOB_ID"):
        return ("batch" if environment.get("ENVIRONMENT") == "BATCH" else "allocation"), 1
    return "plain", 1


def _directory(environment: Mapping[str, str]) -> str | None:
    """Return the working directory by the name its user knows, as pwd -L does; None if it was removed."""
    try:
        physical = os.getcwd()  # noqa: PTH109  a string is wanted
    except OSError:
        return None
    logical = environment.get("PWD", "")
    try:
        same = logical.startswith("/") and os.path.samefile(logical, physical)  # noqa: PTH121  likewise
    except OSError:
        return physical
    return logical if same else physical


def _nodes(environment: Mapping[str, str]) -> int:
    """Return how many nodes the allocation has; 1 without one, 0 if another batch system knows."""
    nodes = environment.get("SLURM_JOB_NUM_NODES", "")
    if nodes.isdecimal():
        return int(nodes)
    return 0 if any(environment.get(name) for name in HOST_FILES) else 1
