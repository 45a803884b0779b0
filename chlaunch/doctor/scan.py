"""A log of any size is read once, in bounded memory, for every message we know.

Lines are matched as bytes: a log may hold anything. One expression of plain texts (needles.py) finds the
lines that may be meant, so one without trouble is looked at once; only on those the patterns are tried. The
expression is RE2's where the module re2 is there (package google-re2), seven times as fast; else Python's,
with the same result.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from chlaunch.doctor.ailments import Ailment
from chlaunch.doctor.needles import expression, hidden, literal, needle

# Read at once.
BLOCK = 1 << 20

# A line that does not end within this much is cut there: it is no message.
LINE_MAX = 64 << 10

# What of a line is matched, before and behind the place where it was found: bounds what a hostile log costs.
BEFORE, BEHIND = 2048, 2048

# What is shown of a line, and of a name found in it, in characters.
EXCERPT_MAX = 160
NAME_MAX = 80

# ch-run's own lines: the error begins with the message, and the remedy has the code at its end.
SAID = r"ch-run\[[0-9]+\]: (?:error: )?(?P<said>"
CODED = r"\[CH-(?P<code>[0-9]{4})\]"


@dataclass(frozen=True)
class Finding:
    """An ailment in a log: how often, and on which line, counted from 1, it is there first; names in it."""

    ailment: Ailment
    count: int
    line: int
    excerpt: str
    names: tuple[tuple[str, str], ...] = ()

    def fill(self, text: str) -> str:
        """Return a cause or remedy with this finding's names in their places; else they stand in capitals."""
        names = dict(self.names)
        return re.sub(r"\{([a-z]+)\}", lambda found: names.get(found[1]) or found[1].upper(), text)


@dataclass(frozen=True)
class Probe:
    """One pattern. rank: lower is tried first. ailment: whose it is; None if the text found says so."""

    rank: tuple[bool, int]
    literal: bytes
    regex: re.Pattern[bytes]
    ailment: Ailment | None


@dataclass(frozen=True)
class Scanner:
    """The catalogue, compiled: what finds lines, the probes for each text it finds, and rows by words."""

    finder: Any
    probes: Mapping[bytes, tuple[Probe, ...]]
    codes: Mapping[str, Ailment]
    messages: Mapping[str, Ailment]


@dataclass
class Tally:
    """What was found so far: the first sight of each ailment by code; how often, by code and by its words."""

    firsts: dict[str, Finding] = field(default_factory=dict)
    coded: Counter[str] = field(default_factory=Counter)
    worded: Counter[str] = field(default_factory=Counter)
    lines: int = 0


def engine() -> Any:  # noqa: ANN401  a module
    """Return the module for the expression that finds lines: re2, or else Python's own."""
    try:
        import re2  # noqa: PLC0415  optional
    except ImportError:
        return re
    return re2


@functools.cache
def scanner(rows: tuple[Ailment, ...], engine: Any) -> Scanner:  # noqa: ANN401  a module
    """Return the scanner for a catalogue."""
    messages: dict[str, Ailment] = {}
    for row in rows:
        if row.is_native:
            messages.setdefault(row.title, row)
    patterns = [(pattern, row) for row in rows for pattern in row.patterns]
    longest_first = sorted(messages, key=len, reverse=True)
    said = f"{SAID}{'|'.join(map(re.escape, longest_first))})"
    own: list[tuple[str, Ailment | None]] = [(CODED, None), *([(said, None)] if messages else [])]
    by_needle: dict[str, list[Probe]] = {}
    for pattern, ailment in (*own, *patterns):
        text = literal(pattern)
        by_needle.setdefault(needle(text), []).append(_probe(pattern, text, ailment))
    probes = {
        text.encode(): _ordered(probe for other in others for probe in by_needle[other])
        for text, others in hidden(by_needle).items()
    }
    finder = engine.compile(expression(by_needle).encode())
    return Scanner(finder, probes, {row.code: row for row in rows}, messages)


def _probe(pattern: str, text: str, ailment: Ailment | None) -> Probe:
    """Return the probe for a pattern: codes come first, then the longest literal, mere symptoms last."""
    first = len(text) if ailment is not None else (1 << 10 if pattern == CODED else 0)
    rank = (ailment is not None and ailment.general, -first)
    return Probe(rank, text.encode(), re.compile(pattern.encode()), ailment)


def _ordered(probes: Iterable[Probe]) -> tuple[Probe, ...]:
    """Return probes in the order in which they are tried."""
    return tuple(sorted(probes, key=lambda probe: probe.rank))


def scan(
    stream: BinaryIO, scanner: Scanner, progress: Callable[[int], None] = lambda _: None
) -> tuple[list[Finding], int]:
    """Return what is found in stream, in no order, and the number of its lines.

    progress is called with the number of bytes read so far, after every block.

    Raises:
        OSError: the stream can't be read.

    """
    tally, read = Tally(), 0
    for block, size in _blocks(stream):
        look(block, scanner, tally)
        read += size
        progress(read)
    return collect(tally), tally.lines


def look(block: bytes, scanner: Scanner, tally: Tally) -> None:
    """Add what is in a block of whole lines to tally."""
    counted, number = 0, tally.lines
    for start, end, needles in _suspects(block, scanner):
        ailment, match = _tell(block[start:end], needles, scanner)
        if ailment is None or match is None:
            continue
        (tally.coded if "code" in match.re.groupindex else tally.worded)[ailment.code] += 1
        if ailment.code not in tally.firsts:
            number += block.count(b"\n", counted, start)
            counted = start
            tally.firsts[ailment.code] = _finding(ailment, match, number + 1)
    tally.lines += block.count(b"\n") + (block[-1:] not in (b"\n", b""))


def _suspects(block: bytes, scanner: Scanner) -> Iterator[tuple[int, int, set[bytes]]]:
    """Give the lines in which there is a needle: where what is to be matched begins and ends; the needles."""
    start = end = -1
    needles: set[bytes] = set()
    for found in scanner.finder.finditer(block):
        at, behind = found.span()
        if at < end:
            needles.add(block[at:behind])
            continue
        if needles:
            yield start, end, needles
        end = block.find(b"\n", at)
        start, end = block.rfind(b"\n", 0, at) + 1, end if end >= 0 else len(block)
        start, end, needles = max(start, at - BEFORE), min(end, at + BEHIND), {block[at:behind]}
    if needles:
        yield start, end, needles


def _tell(
    line: bytes, needles: set[bytes], scanner: Scanner
) -> tuple[Ailment | None, re.Match[bytes] | None]:
    """Return whose line it is: that of the first probe that matches, of those whose needle is there."""
    probes = [probe for needle in needles for probe in scanner.probes[needle]]
    for probe in probes if len(needles) == 1 else _ordered(probes):
        if probe.literal in line and (match := probe.regex.search(line)):
            ailment = probe.ailment or _own(match, scanner)
            if ailment is not None:
                return ailment, match
    return None, None


def _own(match: re.Match[bytes], scanner: Scanner) -> Ailment | None:
    """Return the row that a line of ch-run's means, by its code or its message."""
    names = {name: value.decode() for name, value in match.groupdict().items()}
    return (
        scanner.codes.get(f"CH-{names['code']}") if "code" in names else scanner.messages.get(names["said"])
    )


def _finding(ailment: Ailment, match: re.Match[bytes], number: int) -> Finding:
    """Return the first sight of an ailment; what is shown of the line holds no control characters."""
    line = match.string
    start = max(0, min(match.start() - EXCERPT_MAX // 2, len(line) - EXCERPT_MAX))
    names = tuple((name, shown(value or b"", NAME_MAX)) for name, value in match.groupdict().items())
    return Finding(ailment, 1, number, shown(line[start:], EXCERPT_MAX), names)


def shown(text: bytes, most: int) -> str:
    """Return at most so many characters of text, for a terminal: without control characters."""
    plain = text[: 4 * most].decode(errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in plain)[:most].strip()


def collect(tally: Tally) -> list[Finding]:
    """Return the findings with their counts.

    An error of ch-run is two lines, with the message and with the code. Some messages have several codes:
    then the code that was seen is meant.
    """
    coded_titles = {tally.firsts[code].ailment.title for code in tally.coded}
    return [
        replace(first, count=max(tally.coded[code], tally.worded[code]))
        for code, first in tally.firsts.items()
        if tally.coded[code] or not first.ailment.is_native or first.ailment.title not in coded_titles
    ]


def _blocks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Give stream in blocks of whole lines, each with the number of bytes read for it; long lines are cut."""
    carry, cutting = b"", False
    while chunk := stream.read(BLOCK):
        size = len(chunk)
        if cutting:
            end = chunk.find(b"\n")
            chunk, cutting = (b"", True) if end < 0 else (chunk[end + 1 :], False)
        whole, newline, rest = (carry + chunk).rpartition(b"\n")
        if len(rest) > LINE_MAX:
            whole, newline, rest, cutting = whole + newline + rest[:LINE_MAX], b"\n", b"", True
        carry = rest
        yield whole + newline, size
    if carry:
        yield carry, 0
