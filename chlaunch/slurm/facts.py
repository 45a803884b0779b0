"""What the controller's configuration says, as far as it matters to MPI.

pyslurm is asked where it is of the cluster's release, else ``scontrol show config``, whose text has had this
form in every release. As JSON it is there from 26.05 only (CHANGELOG of 26.05.0rc1); the --json of releases
before changes no more than the lines on the controllers behind it (_print_config in their scontrol.c), and
22.05's scontrol knows no --json at all.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import SlurmError
from chlaunch.slurm.asking import ask
from chlaunch.slurm.offers import version

# A controller answers in milliseconds; or after a failover, for which nobody waits (SlurmctldTimeout, 120 s).
DEADLINE = 10.0

_LINE = re.compile(r"^(\w+)\s*= (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """A cluster's configuration.

    version: the controller's. plugin_directories: of PluginDir. spool, tmp: SlurmdSpoolDir and TmpFS, with %n
    and %h as they stand there. pmix_tmp: where PMIx makes its clients' directories. origin: who told; passed:
    why pyslurm was not asked, or did not tell.
    """

    version: str = ""
    mpi_default: str = ""
    plugin_directories: tuple[str, ...] = ()
    spool: str = ""
    tmp: str = ""
    pmix_tmp: str = ""
    origin: str = ""
    passed: str = ""


def facts(
    scontrol: str, environment: Mapping[str, str], python: str = sys.executable, deadline: float = DEADLINE
) -> Facts:
    """Ask for the configuration. scontrol: a path; python: where pyslurm may be installed; deadline: seconds.

    Raises:
        SlurmError: nobody told.

    """
    try:
        name, values = by_pyslurm(python, version(scontrol), deadline)
    except SlurmError as error:
        return gathered(by_text(scontrol, deadline), "scontrol show config", environment, error.message)
    return gathered(values, name, environment)


def by_pyslurm(python: str, release: str, deadline: float) -> tuple[str, dict[str, str]]:
    """Ask the pyslurm of a Python, in a process of its own. release: the cluster's version.

    Raises:
        SlurmError: there is none, it is of another release, or it did not tell within deadline seconds.

    """
    child = str(Path(__file__).with_name("child.py"))
    # pip's wheels may bring a libslurm that prints: the answer is the last line
    stdout, _ = ask([python, "-I", child, release], deadline, "")
    try:
        answer = json.loads(stdout.rstrip().rpartition("\n")[2])
        if "why" in answer:
            raise SlurmError(answer["why"])
        return f"pyslurm {answer['version']}", dict(answer["values"])
    except (ValueError, LookupError, TypeError):
        raise SlurmError("pyslurm ended its process without an answer") from None


def by_text(scontrol: str, deadline: float) -> dict[str, str]:
    """Ask scontrol.

    Raises:
        SlurmError: it could not be run, said nothing we understand, or took longer than deadline seconds.

    """
    stdout, stderr = ask(
        [scontrol, "show", "config"], deadline, "is slurmctld running and reachable? scontrol ping"
    )
    values = {name: value.strip() for name, value in _LINE.findall(stdout)}
    if "SLURM_VERSION" not in values:
        said = (stderr or stdout).strip().splitlines()
        raise SlurmError(
            f"scontrol show config tells nothing: {said[-1] if said else 'it printed nothing'}",
            "is slurmctld running and reachable? scontrol ping",
        )
    return values


def gathered(
    values: Mapping[str, str], origin: str, environment: Mapping[str, str], passed: str = ""
) -> Facts:
    """Return the facts in values, by the names that scontrol prints."""
    have = {name: value for name, value in values.items() if value != "(null)"}
    return Facts(
        version=have.get("SLURM_VERSION", ""),
        mpi_default=have.get("MpiDefault", "none"),  # so said by 24.11: (null)
        plugin_directories=tuple(filter(None, have.get("PluginDir", "").split(":"))),
        spool=have.get("SlurmdSpoolDir", ""),
        tmp=have.get("TmpFS", ""),
        # _get_client_tmpdir in mpi_pmix's pmixp_info.c: the user's word first, then mpi.conf's, then TmpFS
        pmix_tmp=environment.get("SLURM_PMIX_TMPDIR")
        or have.get("PMIxCliTmpDirBase", "")
        or have.get("TmpFS", ""),
        origin=origin,
        passed=passed,
    )
