"""Slurm's short forms of long lists: host lists (``n[1-3,07],login``) and counts (``4(x2),3``). Pure.

What they come from, environment variables for the most part, anybody may have written: a few bytes can stand
for more names than fit into memory, so there is an end to everything.
"""

import itertools
import re
from collections.abc import Iterable, Iterator

from chlaunch.errors import SlurmError

# More hosts than any machine has; also the most tasks or nodes of a list of counts.
ITEMS_MAX = 100_000

# Of one name: the longest there is in DNS (RFC 1035, 2.3.4).
NAME_MAX = 255

# A number with more digits is no node's, but a serial number or a MAC address, say; it is not counted with.
DIGITS_MAX = 18

_WORD = re.compile(r"((?:[^][,\s]|\[[^][]*\])*)(,|$)")
_PIECE = re.compile(r"\[([^]]*)\]|[^[]+")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_COUNT = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?")
_NUMBERED = re.compile(rf"(.*?)([0-9]{{1,{DIGITS_MAX}}})", re.DOTALL)


def hosts(text: str) -> tuple[str, ...]:
    """Return the names that a host list stands for, in its order, as ``scontrol show hostnames`` prints them.

    A name may have several brackets, of which the last counts fastest. The digits of a range's first number
    say how many each has at least: [08-10] is 08, 09, 10. Empty items are passed over.

    Raises:
        SlurmError: it is no host list, or stands for more than ITEMS_MAX names or ones longer than NAME_MAX.

    """
    found: list[str] = []
    for word in _words(text):
        pieces = [
            _numbers(piece[1], text) if piece[1] is not None else [piece[0]]
            for piece in _PIECE.finditer(word)
        ]
        size = 1
        for piece in pieces:
            size *= len(piece)
            _check_size(size + len(found), text)
        if sum(max(map(len, piece)) for piece in pieces) > NAME_MAX:
            raise SlurmError(f"host list has a name of more than {NAME_MAX} characters: {_shown(text)}")
        found.extend("".join(parts) for parts in itertools.product(*pieces))
    return tuple(found)


def host_list(names: Iterable[str]) -> str:
    """Return the host list for names, in their order; neighbours that differ in their last number are joined.

    hosts() makes names of it again.

    Raises:
        SlurmError: one of them can't be in a host list: it is empty, or has a comma, a bracket or a space.

    """
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    for name in names:
        if not name or re.search(r"[][,\s]", name):
            raise SlurmError(f"not a host's name: {_shown(name)}")
        found = _NUMBERED.fullmatch(name)
        stem, digits = found.groups() if found else (name, "")
        if found is None or not groups or groups[-1][0] != stem or not groups[-1][1]:
            groups.append((stem, []))
        ranges = groups[-1][1]
        if not digits:
            continue
        if ranges and _follows(ranges[-1][1], digits):
            ranges[-1] = (ranges[-1][0], digits)
        else:
            ranges.append((digits, digits))
    return ",".join(stem + _bracket(ranges) for stem, ranges in groups)


def counts(text: str) -> tuple[int, ...]:
    """Return what a list such as ``4(x2),3`` (SLURM_TASKS_PER_NODE, sbatch(1)) stands for: 4, 4, 3.

    Raises:
        SlurmError: it is no such list, or stands for more than ITEMS_MAX numbers.

    """
    found: list[int] = []
    for item in text.strip().split(","):
        match = _COUNT.fullmatch(item)
        if match is None or len(match[1]) > DIGITS_MAX or len(match[2] or "") > DIGITS_MAX:
            raise SlurmError(f"not a list of counts, as 4(x2),3 is: {_shown(text)}")
        _check_size(len(found) + int(match[2] or 1), text)
        found.extend([int(match[1])] * int(match[2] or 1))
    return tuple(found)


def _words(text: str) -> Iterator[str]:
    """Give the items of a host list that are not empty."""
    text = text.strip()
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise SlurmError(f"not a host list: {_shown(text)}")
        if match[1]:
            yield match[1]
        at = match.end()


def _numbers(inside: str, text: str) -> list[str]:
    """Return the numbers between two brackets."""
    found: list[str] = []
    for item in inside.split(","):
        match = _RANGE.fullmatch(item)
        if match is None or max(len(match[1]), len(match[2] or "")) > DIGITS_MAX:
            raise SlurmError(f"host list has no range of numbers in [{_shown(inside)}]: {_shown(text)}")
        first, last, width = int(match[1]), int(match[2] or match[1]), len(match[1])
        if last < first:
            raise SlurmError(f"host list has a range that runs backwards, {item}: {_shown(text)}")
        _check_size(last - first + 1 + len(found), text)
        found.extend(str(number).zfill(width) for number in range(first, last + 1))
    return found


def _check_size(size: int, text: str) -> None:
    """Raise SlurmError where a list stands for too much."""
    if size > ITEMS_MAX:
        raise SlurmError(f"list stands for more than {ITEMS_MAX} items: {_shown(text)}")


def _shown(text: str) -> str:
    """Return text for a message: not all of a long one, and nothing that a terminal obeys."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[:80])
    return plain + ("..." if len(text) > len(plain) else "")


def _follows(before: str, digits: str) -> bool:
    """Say whether a range that ends with before may go on with digits: hosts() would count so."""
    return int(digits) == int(before) + 1 and digits == str(int(before) + 1).zfill(len(before))


def _bracket(ranges: list[tuple[str, str]]) -> str:
    """Return how ranges are written behind a stem; one number needs no brackets."""
    if not ranges:
        return ""
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return ranges[0][0]
    return f"[{','.join(first if first == last else f'{first}-{last}' for first, last in ranges)}]"
