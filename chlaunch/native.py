"""Find our own ch-run.

Never by PATH: a machine may well have Charliecloud's program of the same name, which would start and then
fail on options it does not know.
"""

import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from chlaunch.errors import NativeError


def ch_run(environment: Mapping[str, str]) -> str:
    """Return the absolute path of the ch-run that was installed with this Python package.

    Looked for in ``$CHLAUNCH_CH_RUN`` (which must then be it), beside this Python's scripts, and in the user
    scheme's scripts: the places where pip puts it, in the order ruff uses for its own binary (ruff's
    ``find_ruff_bin``).

    Raises:
        NativeError: it is in none of them, or is not executable.

    """
    named = environment.get("CHLAUNCH_CH_RUN")
    if named:
        if _is_program(Path(named)):
            return str(Path(named).absolute())
        raise NativeError(f"CHLAUNCH_CH_RUN is {named}, which is not an executable file")
    return script(
        "ch-run", "install chlaunch again (pip install builds ch-run), or say CHLAUNCH_CH_RUN=/path/to/ch-run"
    )


def script(name: str, hint: str = "install chlaunch again") -> str:
    """Return the absolute path of a command that was installed with this Python package.

    Raises:
        NativeError: it is not there, or is not executable; with that hint.

    """
    tried = list(_scheme_places(name))
    for candidate in tried:
        if _is_program(candidate):
            return str(candidate)
    raise NativeError(f"can't find our {name}: looked for {' and '.join(map(str, tried))}", hint)


def _scheme_places(name: str) -> Iterator[Path]:
    """Give the paths where an installation may have put a command, best first."""
    yield Path(sysconfig.get_path("scripts")) / name
    # The name of the user scheme ("posix_user") is not the same on all builds of Python.
    yield Path(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))) / name


def _is_program(path: Path) -> bool:
    """Say whether path is a file this user may execute."""
    return path.is_file() and os.access(path, os.X_OK)
