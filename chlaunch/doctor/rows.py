"""What a check says: rows with a verdict."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]

# From good to bad; the place of the worst is ch-doctor's exit code.
VERDICTS: tuple[Verdict, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Row:
    """One finding. remedy: what to do, with the command to type; empty where there is nothing to do."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Patient:
    """What is looked at: this host, as a process with this environment sees it, and maybe an image.

    directory: a private one for what checks need. storage: where images have names. image: the word for it,
    empty if there is none; command: what is to be run in it.
    """

    environment: Mapping[str, str]
    directory: str
    storage: str
    image: str = ""
    command: tuple[str, ...] = field(default=())


def fine(name: str, found: str) -> Row:
    """Return a row with nothing to do."""
    return Row(name, "ok", found)


def warning(name: str, found: str, remedy: str) -> Row:
    """Return a row for what is slow, or will fail for some."""
    return Row(name, "warning", found, remedy)


def problem(name: str, found: str, remedy: str) -> Row:
    """Return a row for what does not work."""
    return Row(name, "problem", found, remedy)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of verdicts; ok if there are none."""
    return max(verdicts, key=VERDICTS.index, default="ok")
