"""ch-site check: this host and the nodes of a partition, looked over at once."""

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress

import click

from chlaunch import native
from chlaunch.cli import shared
from chlaunch.cli.words import parsed
from chlaunch.doctor import checkup, nodes
from chlaunch.doctor.nodes import HERE, Host
from chlaunch.doctor.rows import Row, warning
from chlaunch.errors import SlurmError
from chlaunch.slurm import nodes as cluster
from chlaunch.slurm import offers

NAME = "ch-site"

HELP = """Look over this host and, in one step of srun, the nodes of a partition.

ch-doctor is run on each, as the user who asks. Each finding is told once, with the hosts that have it.
Exit code: 0 if all is well, 1 for warnings, 2 for problems.

\b
  ch-site check
  ch-site check --partition=gpu --nodes=g[01-08] --json
"""

# Seconds: ch-doctor's slowest check has 90.
DEADLINE = 120.0


def check(words: list[str], environment: Mapping[str, str]) -> int:
    """Look over all hosts and report; return the exit code.

    Raises:
        UsageError: the options make no sense.
        SlurmError: there is no Slurm here, or no such partition.
        NativeError: ch-doctor was not installed.

    """
    given = parsed(_command(), words)
    if given is None:
        return 0
    search_path = environment.get("PATH", os.defpath)
    srun, sinfo = (shutil.which(name, path=search_path) for name in ("srun", "sinfo"))
    if srun is None or sinfo is None:
        raise SlurmError("there is no srun and sinfo in PATH", "run it on a login node; ch-doctor needs none")
    probe = native.script("ch-doctor")
    found = cluster.nodes(sinfo, given["partition"] or "", given["nodes"] or "")
    here = _here(srun, environment)
    _progress(f"asking {sum(node.usable for node in found)} nodes")
    steps = cluster.run(
        srun,
        found,
        [probe, "--json"],
        environment,
        deadline=given["deadline"],
        partition=given["partition"] or "",
    )
    asked = ((node, steps.get(node.name)) for node in found)
    hosts = [here, *(nodes.judge(here, node, step, probe, given["deadline"]) for node, step in asked)]
    for line in [nodes.as_json(hosts)] if given["json"] else nodes.as_lines(hosts):
        click.echo(line)
    return nodes.exit_code(hosts)


def _here(srun: str, environment: Mapping[str, str]) -> Host:
    """Return the host this runs on."""
    _progress("looking over this host")
    versions = checkup.versions(environment)
    rows: list[Row] = [nodes.told_versions(versions)]
    rows += [row for _, found in checkup.examine(environment) for row in found]
    if os.geteuid() == 0:
        rows.append(warning("user", "root may what users may not", f"{NAME} check as an ordinary user"))
    release = ""
    with suppress(SlurmError):  # its row in the checkup says why
        release = offers.version(srun)
    return Host(HERE, tuple(rows), slurm=release, versions=versions)


def _progress(words: str) -> None:
    """Say on a terminal what is going on."""
    if sys.stderr is not None and sys.stderr.isatty():
        shared.say(NAME, f"{words}...")


def _command() -> click.Command:
    """Return click's idea of ``ch-site check``."""
    return click.Command(
        f"{NAME} check",
        help=HELP,
        params=[
            click.Option(["--partition", "-p"], metavar="NAME", help="not the default one"),
            click.Option(["--nodes", "-w"], metavar="LIST", help="only these nodes of it: n[1-8]"),
            click.Option(
                ["--deadline"],
                metavar="SECONDS",
                type=click.FloatRange(min=1),
                default=DEADLINE,
                help=f"for the nodes to answer, {DEADLINE:g} if not said",
            ),
            click.Option(["--json"], is_flag=True, help="report as one JSON object"),
        ],
        context_settings={"max_content_width": 100},
    )
