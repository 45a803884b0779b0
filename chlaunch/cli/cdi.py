"""ch-cdi: what ch-run becomes, for a moment, to have --cdi and --device turned into its plain options.

::

    ch-cdi [--dirs=A:B] [--request=R ...] [--all] [--verbose] -- CH_RUN WORD...

It ends as ``CH_RUN --cdi-resolved OPTION... WORD...``. There is no click here: every rank of a job may come
this way (click takes 70 ms), and the words are those of ch-run, not of a person.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from chlaunch.cdi import render, resolve
from chlaunch.cdi.render import Plain
from chlaunch.cli import shared
from chlaunch.errors import NativeError, UsageError

USAGE = "usage: ch-cdi [--dirs=A:B] [--request=DEVICE|KIND|FILE] [--all] [--verbose] -- CH-RUN [WORD...]"

# Where launchers say which rank of its node a process is; the first gives the warnings. srun(1), Open MPI's
# mpirun(1), Hydra, HPE's PALS.
LOCAL_RANKS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID")


@dataclass(frozen=True)
class Words:
    """The parts of the command line. requests: None for everything; rest: ch-run's path and words."""

    requests: tuple[str | None, ...]
    directories: str | None
    verbose: bool
    rest: tuple[str, ...]


def main() -> None:
    """Run the command and exit."""
    sys.exit(shared.run(name(), cdi, sys.argv[1:]))


def name() -> str:
    """Return how messages begin: as ch-run's do, with the process, of which there may be many."""
    return f"ch-cdi[{os.getpid()}]"


def cdi(words: list[str], environment: Mapping[str, str]) -> int:
    """Resolve, say what there is to say, and become ch-run.

    Raises:
        ChlaunchError: UsageError, CdiError or NativeError.

    """
    if words[:1] == ["--help"]:
        sys.stdout.write(f"{USAGE}\nSee ch-cdi(1).\n")
        return 0
    parts = split(words)
    plain = render.plain(resolve.resolve(parts.requests, resolve.directories(parts.directories, environment)))
    if all(environment.get(variable, "0") == "0" for variable in LOCAL_RANKS):
        report(plain, verbose=parts.verbose)
    return become((parts.rest[0], "--cdi-resolved", *render.words(plain), *parts.rest[1:]))


def split(words: list[str]) -> Words:
    """Return the parts of a command line.

    Raises:
        UsageError: an unknown word, nothing asked for, or no ch-run.

    """
    at = words.index("--") if "--" in words else len(words)
    if not words[at + 1 :]:
        raise UsageError("no ch-run after `--`", USAGE)
    requests: list[str | None] = []
    directories = None
    verbose = False
    for word in words[:at]:
        option, equals, value = word.partition("=")
        if word == "--all":
            requests.append(None)
        elif word == "--verbose":
            verbose = True
        elif option == "--request" and value:
            requests.append(value)
        elif option == "--dirs" and equals:
            directories = value
        else:
            raise UsageError(f"unknown word {word}", USAGE)
    if not requests:
        raise UsageError("no device asked for", USAGE)
    return Words(tuple(requests), directories, verbose, tuple(words[at + 1 :]))


def report(plain: Plain, *, verbose: bool) -> None:
    """Print the warnings, and for those who want to know also what was left out and does no harm."""
    for warning in plain.warnings:
        shared.say(name(), f"warning: {warning}")
    for omission in plain.omissions if verbose else ():
        shared.say(name(), f"note: hook {omission.hook} left out: {omission.reason} [{omission.why.file}]")


def become(argv: tuple[str, ...]) -> int:
    """Replace this process by ch-run; never returns.

    Raises:
        NativeError: it could not be executed.

    """
    shared.restore_signals()
    try:
        os.execv(argv[0], argv)  # noqa: S606
    except OSError as error:
        raise NativeError(f"can't execute {argv[0]}: {error.strerror}") from error
