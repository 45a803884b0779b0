"""What all commands share: how failures and plans are worded, and what they exit with."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chlaunch.errors import ChlaunchError, UsageError

if TYPE_CHECKING:  # most commands have no plan, whose modules take half of their start
    from chlaunch.launch.options import Settings
    from chlaunch.launch.plan import Plan


ENDING = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Manner:
    """How a command ends. codes: exit codes that are others here. option, variable: ask for a traceback.

    Both work before any option is parsed, because parsing is among the things that fail.
    """

    codes: Mapping[int, int]
    option: str
    variable: str


OURS = Manner({}, "--ch-debug", "CHLAUNCH_DEBUG")

# ch-image and ch-convert end as charliecloud's do: with 2 for words that make no sense, as Python's argparse
# does, else with 1.
CHARLIECLOUD = Manner({UsageError.exit_code: 2, ChlaunchError.exit_code: 1}, "--debug", "CH_IMAGE_DEBUG")


def run(
    name: str,
    command: Callable[[list[str], Mapping[str, str]], int],
    words: list[str],
    manner: Manner = OURS,
) -> int:
    """Call a command with words and this process's environment; word its failure; return its exit code.

    name: what lines are headed by, if it is not empty.
    """
    try:
        return command(words, os.environ)
    except ChlaunchError as error:
        if _is_debugging(words, manner):
            raise
        say(name, f"error: {error.message}")
        for line in error.hint.splitlines():
            say(name, f"hint: {line}")
        return manner.codes.get(error.exit_code, error.exit_code)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it
    except BrokenPipeError:
        sys.stdout = None  # whoever read our output has gone; nothing is left to flush
        return 141
    except OSError as error:
        if _is_debugging(words, manner):
            raise
        say(name, f"error: {error.filename or 'output'}: {error.strerror}")
        return manner.codes.get(ChlaunchError.exit_code, ChlaunchError.exit_code)


def fetched(word: str, settings: "Settings", environment: Mapping[str, str]) -> str:
    """Return the image here for one in a registry, and any other as it is; see fetch.local_image()."""
    if "/" not in word or word.startswith(("/", ".")):
        return word
    from chlaunch.cli import fetch, progress  # noqa: PLC0415  most images are here

    with ending_well():
        return fetch.local_image(word, settings, environment, progress.events())


def staged(path: str, settings: "Settings", environment: Mapping[str, str]) -> str:
    """Return where the nodes have an image; see fetch.staged(). What is only shown is not copied."""
    if not settings.text("stage") or settings.is_on("dry-run"):
        return path
    from chlaunch.cli import fetch  # noqa: PLC0415  likewise

    return fetch.staged(path, settings, environment)


def say(name: str, line: str) -> None:
    """Print one line to stderr, headed by the command's name if it has one; nowhere if stderr is closed."""
    if sys.stderr is not None:
        print(f"{name}: {line}" if name else line, file=sys.stderr)  # noqa: T201  the one place that prints to stderr


def show(name: str, plan: "Plan", settings: "Settings") -> None:
    """Say what was asked for of the plan, and what the user should hear in any case."""
    dry = settings.is_on("dry-run")
    if settings.is_on("json"):
        print(_json(plan), file=sys.stdout if dry else sys.stderr)
    elif settings.is_on("explain"):
        for row in plan.reasons:
            say(name, f"{row.value}: {row.reason} [{row.origin}]")
    for note in plan.notes:
        say(name, f"warning: {note}")
    if dry and not settings.is_on("json"):
        sys.stdout.buffer.write(os.fsencode(plan.line()) + b"\n")  # words need not be UTF-8
        sys.stdout.flush()


@contextmanager
def ending_well() -> Iterator[None]:
    """Meanwhile, let signals that end a command end it as if by itself, so that temporary files go.

    What is ignored, as under nohup(1), stays so.
    """

    def stop(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    heard = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restore_signals() -> None:
    """Undo what Python does to signals, as a program that this process becomes would find them ignored."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _is_debugging(words: list[str], manner: Manner) -> bool:
    """Say whether a traceback was asked for, in the words that are ours."""
    before = words[: words.index("--")] if "--" in words else words
    said = os.environ.get(manner.variable, "").lower()
    return manner.option in before or said in ("1", "yes", "true", "on")


def version() -> str:
    """Return the version of the installed package."""
    from importlib import metadata  # noqa: PLC0415  only with --version

    try:
        return metadata.version("chlaunch")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _json(plan: "Plan") -> str:
    """Return the plan as one JSON object."""
    import json  # noqa: PLC0415  only with --ch-json

    return json.dumps(
        {
            "argv": plan.argv,
            "environment": dict(plan.environment),
            "reasons": [{"what": row.value, "why": row.reason, "origin": row.origin} for row in plan.reasons],
            "notes": plan.notes,
        }
    )
