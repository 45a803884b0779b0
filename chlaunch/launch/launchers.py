"""The launchers, one row each, and which of them a launch takes.

There is no column for environment variables: what ranks need is in ch-run's own options, which every launcher
passes on as they are, while srun's --export, Open MPI's -x and Hydra's -genv each forget something.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chlaunch.errors import RefusedError
from chlaunch.launch.context import Context
from chlaunch.launch.image import Image
from chlaunch.launch.options import ENVIRONMENT, Settings
from chlaunch.launch.tables import Row

HERE = "this host"


@dataclass(frozen=True)
class Fit:
    """Whether a launcher can be used, and why, or why not."""

    usable: bool
    why: str


@dataclass(frozen=True)
class Launcher:
    """A way to start ranks.

    outside: each rank is started by the host and enters the container by itself; else one container holds
    launcher and ranks. mpi_options, directory_options: the names under which its users choose a wire-up and a
    working directory.
    """

    name: str
    outside: bool
    mpi_options: tuple[str, ...]
    directory_options: tuple[str, ...]
    fit: Callable[[Context, Image], Fit]


def _fit_srun(context: Context, _image: Image) -> Fit:
    """Say whether there is a Slurm; srun alone, left by a package without a cluster, is none."""
    if context.srun is None:
        return Fit(usable=False, why="there is no srun in PATH")
    if context.configuration is not None:
        return Fit(usable=True, why=f"there is a Slurm ({context.srun}, {context.configuration})")
    if context.named_configuration is not None:
        return Fit(usable=False, why=f"SLURM_CONF is {context.named_configuration}, which can't be read")
    if context.place in ("allocation", "batch", "step"):
        return Fit(usable=True, why="this is a Slurm job")
    return Fit(usable=False, why=f"{context.srun} has no slurm.conf")


def _fit_mpirun(context: Context, image: Image) -> Fit:
    """Say whether the host's mpirun can start the image's ranks."""
    if context.mpirun is None:
        return Fit(usable=False, why="there is no mpirun in PATH")
    starter = context.starter
    if not starter.kind:
        return Fit(usable=False, why=f"{context.mpirun} is neither Open MPI's nor Hydra")
    there = f"{context.mpirun} is {starter.title}"
    if image.plain or not (image.mpis or image.strange):
        return Fit(usable=True, why=there)
    for part in image.mpis:  # which of several is meant is not known, so it must be good for all
        wires = part.flavour.starts(starter.kind, part.version, starter.version, part.features)
        if all(wire.one_node for wire in wires) and (context.nodes != 1 or not wires):
            can = (
                f"can start {part.title} on one node only"
                if wires
                else f"can't start the ranks of {part.title}"
            )
            return Fit(usable=False, why=f"{there}, which {can}")
    can = "can" if image.mpis else "can't"
    return Fit(usable=bool(image.mpis), why=f"{there}, which {can} start the ranks of {image.speaks}")


def _fit_guest(_context: Context, image: Image) -> Fit:
    """Say whether the image has an mpirun of its own."""
    if image.unseen:
        return Fit(usable=False, why=f"the image may have an mpirun or not: it is {image.unseen}")
    if len(image.mpis) > 1:
        return Fit(
            usable=False, why=f"the image has several MPIs ({image.speaks}), and the command tells none"
        )
    if not image.mpirun:
        return Fit(usable=False, why="the image has no mpirun that we know")
    return Fit(usable=True, why=f"the image has an mpirun, which starts {image.speaks} on this one machine")


def may_ask_mpirun(settings: Settings, context: Context) -> bool:
    """Say whether it matters what the host's mpirun is: where it was asked for, or there is no Slurm."""
    asked = settings.text("launcher", "auto")
    return context.mpirun is not None and (
        asked == "mpirun" or (asked == "auto" and not _fit_srun(context, Image("")).usable)
    )


LAUNCHERS = (
    Launcher(
        "srun", outside=True, mpi_options=("--mpi",), directory_options=("-D", "--chdir"), fit=_fit_srun
    ),
    Launcher(
        "mpirun",
        outside=True,
        mpi_options=(),
        fit=_fit_mpirun,
        directory_options=("-wd", "--wd", "-wdir", "--wdir"),
    ),
    Launcher(
        "guest",
        outside=False,
        mpi_options=(),
        fit=_fit_guest,
        directory_options=("-wd", "--wd", "-wdir", "--wdir"),
    ),
)


def choose(settings: Settings, context: Context, image: Image) -> tuple[Launcher, Row]:
    """Return the launcher that was asked for, or the first that can be used, and why.

    Raises:
        RefusedError: it, or none, can be used; or this is one rank of many, each of which would start a job.

    """
    asked = settings.last("launcher")
    if context.world > 1 and (asked is None or asked.value == "auto" or asked.strength < ENVIRONMENT):
        raise RefusedError(
            f"this is one rank of {context.world}, and each would launch a job of its own",
            "start ch-launch once, without the launcher around it; or put ch-run --join in its place",
        )
    if asked is not None and asked.value != "auto":
        launcher = next(row for row in LAUNCHERS if row.name == asked.value)
        fit = launcher.fit(context, image)
        if not fit.usable and not _is_insisted(launcher, settings, context, image):
            raise RefusedError(
                f"can't launch with {launcher.name}: {fit.why}", _instead(launcher, context, image)
            )
        return launcher, Row(f"launcher {launcher.name}", f"asked for; {fit.why}", asked.origin)
    fits = [(launcher, launcher.fit(context, image)) for launcher in LAUNCHERS]
    for launcher, fit in fits:
        if fit.usable:
            passed = [other.why for _, other in fits[: [row for row, _ in fits].index(launcher)]]
            return launcher, Row(f"launcher {launcher.name}", "; ".join([*passed, fit.why]), HERE)
    raise RefusedError(
        f"nothing here can launch: {'; '.join(fit.why for _, fit in fits)}",
        "if the image has an mpirun, --ch-launcher=guest uses it"
        if image.unseen
        else "take an image with Open MPI in it, or install Slurm or Open MPI here",
    )


def _is_insisted(launcher: Launcher, settings: Settings, context: Context, image: Image) -> bool:
    """Say whether the user knows better: the program is there, and --ch-mpi says it is no question of MPI.

    Who asks for the mpirun of an image that we can't look into is believed.
    """
    if launcher.name == "guest":
        return bool(image.unseen)
    there = {"srun": context.srun, "mpirun": context.mpirun}.get(launcher.name)
    return there is not None and (launcher.name == "srun" or settings.text("mpi") == "none")


def _instead(refused: Launcher, context: Context, image: Image) -> str:
    """Return a hint that names the launchers that could be used."""
    usable = [row.name for row in LAUNCHERS if row is not refused and row.fit(context, image).usable]
    return f"try {' or '.join(f'--ch-launcher={name}' for name in usable)}" if usable else ""
