"""A message, a code, or a whole log: what it means and what to do about it."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from chlaunch.doctor import scan
from chlaunch.doctor.ailments import Ailment, by_code
from chlaunch.doctor.scan import Finding


@dataclass(frozen=True)
class Answer:
    """What was recognised, the most specific first, and how many lines were looked at (0: it was a code)."""

    findings: tuple[Finding, ...]
    lines: int


def explain_text(text: str, catalogue: Iterable[Ailment]) -> Answer:
    """Explain what somebody typed or pasted: a code, a message of one line or more, or plain words."""
    rows = tuple(catalogue)
    meant = by_code(rows, text)
    if meant is not None:
        return Answer((Finding(meant, 0, 0, ""),), 0)
    answer = explain_log(io.BytesIO(text.encode(errors="surrogateescape")), rows, whole=True)
    if answer.findings:
        return answer
    asked = " ".join(text.casefold().split())
    found = [row for row in rows if any(word.casefold() in asked for word in row.words)]
    return Answer(tuple(Finding(row, 1, 1, scan.shown(text.encode(), scan.EXCERPT_MAX)) for row in found), 1)


def explain_log(
    stream: BinaryIO,
    catalogue: Iterable[Ailment],
    progress: Callable[[int], None] = lambda _: None,
    *,
    whole: bool = False,
) -> Answer:
    """Explain a log, in memory that does not grow with it.

    What is a sign only where it is there twice is left out where it is there once, unless this is the whole
    of what was asked. progress is called with the number of bytes read so far.

    Raises:
        OSError: stream can't be read.

    """
    compiled = scan.scanner(tuple(catalogue), scan.engine())
    findings, lines = scan.scan(stream, compiled, progress)
    told = [row for row in findings if whole or not row.ailment.repeated or row.count > 1]
    told.sort(key=lambda row: (row.ailment.general, row.line))
    return Answer(tuple(told), lines)
