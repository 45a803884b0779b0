"""Our SPANK plugin on this host: what plugstack.conf says of it, and whether that is there."""

import os
from collections.abc import Iterable
from pathlib import Path

from chlaunch.doctor.rows import Row, fine, problem, warning
from chlaunch.slurm import plugstack
from chlaunch.slurm.facts import Facts
from chlaunch.slurm.plugstack import Plugin

NAME = "SPANK plugin"
FILE = "spank_chlaunch.so"
PLANNER = "planner="


def plugin(configuration: str | None, known: Facts) -> list[Row]:
    """Look for the plugin. configuration: the path of slurm.conf, None if it can't be read here."""
    if configuration is None:
        return []
    try:
        stack = plugstack.location(configuration)
        ours = [line for line in plugstack.plugins(stack) if line.path.rpartition("/")[2] == FILE]
    except OSError as error:
        why = f"can't read {error.filename or configuration}: {error.strerror}"
        return [warning(NAME, why, "as root: let everybody read it, as srun does it as the user")]
    if not ours:
        return [fine(NAME, f"none in {stack}: --ch-image is for ch-launch alone")]
    line = ours[0]
    places = [
        Path(top, line.path) for top in known.plugin_directories or ("/",)
    ]  # spank(7): if it is relative
    planners = [word.removeprefix(PLANNER) for word in line.arguments if word.startswith(PLANNER)]
    return [judge(line, there=_readable(places), planner=_runs(planners))]


def judge(line: Plugin, *, there: bool, planner: bool) -> Row:
    """Return whether what a line names is here. there: the plugin; planner: the Python that it starts."""
    if not there and line.required:
        return problem(
            NAME,
            f"{line.path} is not here, and {line.where} requires it: srun fails, steps on this host do, and a"
            " slurmd that is started anew",
            "as root: ch-site install on this host, or put it where all hosts see it",
        )
    if not there:
        return warning(
            NAME,
            f"{line.path} is not here, and {line.where} calls it optional: ranks start here, but srun, in"
            " scripts too, does not know --ch-image and runs --container's command on the host",
            "as root: ch-site install on this host, unless nobody calls srun here",
        )
    if not planner:
        return warning(
            NAME,
            f"{line.path} is here, but the {PLANNER} in {line.where} is not: srun --ch-image fails here",
            "install chlaunch in the same place on this host, or where all hosts see it",
        )
    return fine(NAME, f"{line.path}, by {line.where}")


def _readable(paths: Iterable[Path]) -> bool:
    """Say whether one of these is a file that can be loaded."""
    return any(path.is_file() and os.access(path, os.R_OK) for path in paths)


def _runs(planners: list[str]) -> bool:
    """Say whether the planner, the last that was named, can be started."""
    return bool(planners) and os.access(planners[-1], os.X_OK)
