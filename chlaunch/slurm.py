"""What we ask Slurm. Nothing here talks to the controller."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import SlurmError

# srun loads every MPI plugin to list them: 20 ms on a warm disk, seconds on a cold shared one.
LIST_DEADLINE = 10.0

# Where Slurm's commands find their configuration without being told, after $SLURM_CONF: what a slurmd or
# sackd keeps for configless clusters (configless_slurm.html), then the directories distributions compile in
# (slurm.conf(5)).
CONFIGURATIONS = ("/run/slurm/conf/slurm.conf", "/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf")

_SPECIFIC = re.compile(r"^specific pmix plugin versions available: (\S+)$")
_PLUGIN = re.compile(r"^(?:srun: |\t)\s*([a-z][a-z0-9_]*)$")


@dataclass(frozen=True)
class Offer:
    """The wire-ups this host's srun has: names for --mpi=, and how we know."""

    plugins: tuple[str, ...]
    origin: str


def mpi_plugins(text: str) -> tuple[str, ...]:
    """Return the names that ``srun --mpi=list`` printed, in its order, the versioned ones last.

    Three forms are in use: up to 21.08 every line carries ``srun: ``; from 22.05 names are indented by a tab
    and the versions of pmix stand on a line of their own (plugrack_print_mpi_plugins in Slurm's plugrack.c),
    to stderr in 22.05 and to stdout later. Lines of any other form, such as srun's complaints, are passed
    over.
    """
    names: list[str] = []
    versions: list[str] = []
    for line in text.splitlines():
        if found := _SPECIFIC.match(line):
            versions.extend(found[1].split(","))
        elif found := _PLUGIN.match(line):
            names.append(found[1])
    return tuple(dict.fromkeys(names + versions))


def offer(srun: str, deadline: float = LIST_DEADLINE) -> Offer:
    """Ask srun (a path) which MPI plugins it has; deadline in seconds.

    Raises:
        SlurmError: srun could not be run, said nothing we understand, or took longer than the deadline.

    """
    import subprocess  # noqa: PLC0415  10 ms that most launches do not need

    argv = [srun, "--mpi=list"]
    hint = "say which to use with --mpi=TYPE (srun's) or --ch-mpi=TYPE"
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise SlurmError(f"srun --mpi=list gave no answer in {deadline:g} s", hint) from None
    except OSError as error:
        raise SlurmError(f"can't execute {srun}: {error.strerror}") from error
    plugins = mpi_plugins(done.stdout) or mpi_plugins(done.stderr)
    if not plugins:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SlurmError(
            f"srun --mpi=list names no plugin: {said[-1] if said else 'it printed nothing'}", hint
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
