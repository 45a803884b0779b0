"""What all commands share: how failures and plans are worded, and what they exit with."""

import os
import signal
import sys
from collections.abc import Callable, Mapping

from chlaunch.errors import ChlaunchError
from chlaunch.launch.options import Settings
from chlaunch.launch.plan import Plan

# Both work before any option is parsed, because parsing is among the things that fail.
DEBUG_OPTION = "--ch-debug"
DEBUG_VARIABLE = "CHLAUNCH_DEBUG"


def run(name: str, command: Callable[[list[str], Mapping[str, str]], int], words: list[str]) -> int:
    """Call a command with words and this process's environment; word its failure; return its exit code."""
    try:
        return command(words, os.environ)
    except ChlaunchError as error:
        if _is_debugging(words):
            raise
        say(name, f"error: {error.message}")
        for line in error.hint.splitlines():
            say(name, f"hint: {line}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it
    except BrokenPipeError:
        sys.stdout = None  # whoever read our output has gone; nothing is left to flush
        return 141
    except OSError as error:
        if _is_debugging(words):
            raise
        say(name, f"error: {error.filename or 'output'}: {error.strerror}")
        return ChlaunchError.exit_code


def say(name: str, line: str) -> None:
    """Print one line to stderr, headed by the command's name; nowhere if stderr is closed."""
    if sys.stderr is not None:
        print(f"{name}: {line}", file=sys.stderr)  # noqa: T201  the one place that prints to stderr


def show(name: str, plan: Plan, settings: Settings) -> None:
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


def restore_signals() -> None:
    """Undo what Python does to signals, as a program that this process becomes would find them ignored."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _is_debugging(words: list[str]) -> bool:
    """Say whether a traceback was asked for, in the words that are ours."""
    before = words[: words.index("--")] if "--" in words else words
    return DEBUG_OPTION in before or os.environ.get(DEBUG_VARIABLE, "").lower() in ("1", "yes", "true", "on")


def _json(plan: Plan) -> str:
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
