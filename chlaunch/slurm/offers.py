"""What srun offers, and which configuration it reads. Nothing here talks to the controller."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from chlaunch.errors import SlurmError
from chlaunch.slurm.asking import INSIST, ask

# srun looks at every plugin it has to list those for MPI: 6 ms on a warm disk, seconds on a cold shared one.
LIST_DEADLINE = 10.0

# Where Slurm's commands find their configuration without being told, after $SLURM_CONF: what a slurmd or
# sackd keeps for configless clusters (configless_slurm.html), then the directories distributions compile in
# (slurm.conf(5)).
CONFIGURATIONS = ("/run/slurm/conf/slurm.conf", "/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf")

# More of a slurm.conf than any has; what it includes is not read.
CONFIGURATION_BYTES = 1 << 20

# Slurm 26.05 takes both names, and lists its plugins by the second.
_JOB_TMP = re.compile(
    rb"^\s*(?:JobContainerType|NamespaceType)\s*=\s*\w+/tmpfs\b", re.MULTILINE | re.IGNORECASE
)
_SPECIFIC = re.compile(r"^specific pmix plugin versions available: (\S+)$")
_VERSION = re.compile(r"^slurm(?:-\w+)? ([0-9]+\.[0-9]+\S*)$", re.MULTILINE)
_PLUGIN = re.compile(r"^(?:srun: |\t)\s*([a-z][a-z0-9_]*)$")


@dataclass(frozen=True)
class Offer:
    """The wire-ups this host's srun has: names for --mpi=, and how we know. version: empty if not asked."""

    plugins: tuple[str, ...]
    origin: str
    version: str = ""


def mpi_plugins(text: str) -> tuple[str, ...]:
    """Return the names that ``srun --mpi=list`` printed, in its order, the versioned ones last.

    Two forms are in use. Up to 21.08 every line carries ``srun: `` and goes to stderr; from 22.05 names are
    indented by a tab, the versions of pmix stand on a line of their own, and stdout has them
    (plugrack_print_mpi_plugins in plugrack.c). Lines of any other form, such as complaints, are
    passed over.
    """
    names: list[str] = []
    versions: list[str] = []
    for line in text.splitlines():
        if found := _SPECIFIC.match(line):
            versions.extend(found[1].split(","))
        elif found := _PLUGIN.match(line):
            names.append(found[1])
    return tuple(dict.fromkeys(names + versions))


def offer(srun: str, *, with_version: bool = False) -> Offer:
    """Ask srun (a path) which MPI plugins it has, and its version if that is wanted: another process.

    Raises:
        SlurmError: srun could not be run, said nothing we understand, or took longer than LIST_DEADLINE.

    """
    found = understood(*ask([srun, "--mpi=list"], LIST_DEADLINE))
    with suppress(SlurmError):  # a vendor's Slurm may word it otherwise: then it is not known
        return replace(found, version=version(srun)) if with_version else found
    return found


def version(command: str, environment: Mapping[str, str] | None = None) -> str:
    """Ask a command of Slurm (a path) for its version, which is that of all there are here: 22.05.8.

    environment: the command's, if not ours.

    Raises:
        SlurmError: it could not be run, said nothing we understand, or took longer than LIST_DEADLINE.

    """
    stdout, stderr = ask([command, "--version"], LIST_DEADLINE, environment=environment)
    found = _VERSION.search(stdout)
    if found is None:
        said = (stderr or stdout).strip().splitlines()
        raise SlurmError(
            f"{command} --version names no version: {said[-1] if said else 'it printed nothing'}"
        )
    return found[1]


def understood(stdout: str, stderr: str) -> Offer:
    """Return the offer in what ``srun --mpi=list`` printed.

    Raises:
        SlurmError: it names no plugin; with the last thing srun said.

    """
    plugins = mpi_plugins(stdout) or mpi_plugins(stderr)
    if not plugins:
        said = (stderr or stdout).strip().splitlines()
        raise SlurmError(
            f"srun --mpi=list names no plugin: {said[-1] if said else 'it printed nothing'}", INSIST
        )
    return Offer(plugins, "srun --mpi=list")


def configuration(srun: str, environment: Mapping[str, str]) -> str | None:
    """Return the slurm.conf that srun (a path) will read, or None where there is none to be seen.

    A cluster that is found by a DNS record alone (configless, without slurmd or sackd here) looks like None:
    asking the name service at every launch would cost more than such login nodes are common.
    """
    named = environment.get("SLURM_CONF")
    if named:
        return named if os.access(named, os.R_OK) else None
    prefix = Path(srun).resolve().parent.parent  # a build of one's own has PREFIX/bin/srun and PREFIX/etc
    built_in = (str(prefix / "etc/slurm.conf"), str(prefix / "etc/slurm/slurm.conf"))
    return next((path for path in (*CONFIGURATIONS, *built_in) if os.access(path, os.R_OK)), None)


def has_job_tmp(configuration: str) -> bool:
    """Say whether each job has a /tmp of its own (job_container.conf(5)); configuration: a path."""
    try:
        with Path(configuration).open("rb") as file:
            return _JOB_TMP.search(file.read(CONFIGURATION_BYTES)) is not None
    except OSError:
        return False
