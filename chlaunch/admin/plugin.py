"""The SPANK plugin: where it is, for which Slurm it was built, and whether users can start its planner."""

import os
import re
import stat
import tempfile
from pathlib import Path

from chlaunch.errors import ChlaunchError, RefusedError, SlurmError
from chlaunch.launch import elf
from chlaunch.slurm import offers

NAME = "spank_chlaunch.so"

_RELEASE = re.compile(r"([0-9]+)\.([0-9]+)")

# slurm.conf(5): srun reads one before it says its version; these two lines are all it insists on.
_LEAST = "ClusterName=none\nSlurmctldHost=localhost\n"


def places() -> list[Path]:
    """Return where the plugin may be, best first: installed with this package, or built in its sources."""
    package = Path(__file__).resolve().parents[1]
    build = package.parent / "build"
    return [package / "spank" / NAME, build / NAME, *sorted(build.glob(f"*/{NAME}"))]


def release_of(path: str) -> str:
    """Return the release of Slurm that a plugin was built for: 22.05.

    slurm/spank.h compiles the number into every plugin (SPANK_PLUGIN), and Slurm loads none of another major
    or minor release (plugin_peek in its plugin.c).

    Raises:
        ChlaunchError: it can't be read, or is no SPANK plugin.

    """
    try:
        with Path(path).open("rb") as file:
            kind = elf.data_of(file, "plugin_type", 64)
            number = elf.data_of(file, "plugin_version", 4)
    except OSError as error:
        raise ChlaunchError(f"can't read the plugin {path}: {error.strerror}") from error
    if not kind.startswith(b"spank\0") or len(number) != 4:  # noqa: PLR2004  an unsigned int
        raise ChlaunchError(f"{path} is no SPANK plugin")
    value = int.from_bytes(number, "little")
    return f"{value >> 16 & 0xFF:02}.{value >> 8 & 0xFF:02}"


def release_here(srun: str | None) -> str:
    """Return the release of the Slurm whose srun (a path) this is: 22.05.

    Raises:
        SlurmError: there is none, or it does not say.

    """
    if srun is None:
        raise SlurmError("there is no srun in PATH", "say which Slurm it is for: --slurm 24.11")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as least:
        least.write(_LEAST)
        least.flush()
        return offers.version(srun, {**os.environ, "SLURM_CONF": least.name})


def two_numbers(release: str) -> str:
    """Return the part of a release that plugins are bound to.

    Raises:
        ChlaunchError: it is no release.

    """
    found = _RELEASE.match(release)
    if found is None:
        raise ChlaunchError(f"not a release of Slurm, as 24.11 is: {release}")
    return f"{int(found[1]):02}.{int(found[2]):02}"


def checked(named: str | None, release: str) -> str:
    """Return the path of the plugin for a release of Slurm. named: the one to take, None for ours.

    Raises:
        RefusedError: it is for another Slurm.
        ChlaunchError: there is none, or it is not one.

    """
    wanted = two_numbers(release)
    build = (
        "install chlaunch from its sources where that Slurm's slurm/spank.h is (libslurm-dev, slurm-devel);"
        " or say --plugin FILE"
    )
    found = [named] if named else [str(path) for path in places() if path.is_file()]
    if not found:
        raise ChlaunchError(f"this chlaunch was built without {NAME}", f"{build}; or --no-plugin")
    built_for = {path: release_of(path) for path in found}
    fit = next((path for path, built in built_for.items() if built == wanted), None)
    if fit is None:
        listed = ", ".join(f"{path} is for Slurm {built}" for path, built in built_for.items())
        raise RefusedError(f"Slurm here is {release}, but {listed}: srun would refuse it", build)
    return fit


def planner_trouble(planner: str) -> str:
    """Return why users' sruns can't start this Python, or should not; empty if all is well."""
    if not planner.startswith("/") or re.search(r"[\s\"'#]", planner):
        return f"{planner} is not an absolute path without blanks and quotes, as plugstack.conf needs"
    for path in dict.fromkeys([planner, os.path.realpath(planner)]):
        for part in [Path(path), *Path(path).parents]:
            try:
                status = part.stat()
            except OSError as error:
                return f"{part}: {error.strerror}"
            if not status.st_mode & stat.S_IXOTH:
                return f"{part} is closed to users (mode {stat.S_IMODE(status.st_mode):04o})"
            if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                return f"anybody may write to {part} (mode {stat.S_IMODE(status.st_mode):04o})"
            if status.st_uid != 0:
                return f"{part} belongs to user {status.st_uid}, who could run programs as all others"
    return ""
