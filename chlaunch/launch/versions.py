"""Version numbers, and the ranges of them that tables are written with: ``>=4.0.2 <5``."""

import re

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
_BOUND = re.compile(r"(>=|<=|>|<|=)?([0-9]+(?:\.[0-9]+)*)")


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers a version begins with: 4.1.8rc1 is (4, 1, 8); () if it begins with none."""
    found = _NUMBER.match(text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def is_range(text: str) -> bool:
    """Say whether text is a range: bounds between spaces, all of which hold; a bare 4.1 is 4.1 and 4.1.x."""
    return all(_BOUND.fullmatch(word) for word in text.split())


def within(version: str, ranges: str) -> bool:
    """Say whether version is in the range; one that is not known is in the empty range only."""
    bounds = [_BOUND.fullmatch(word) for word in ranges.split()]
    have = numbers(version)
    return not bounds or bool(have and all(bound and _holds(have, bound) for bound in bounds))


def _holds(have: tuple[int, ...], bound: re.Match[str]) -> bool:
    """Say whether one bound holds."""
    limit = numbers(bound[2])
    width = max(len(have), len(limit))
    left = have + (0,) * (width - len(have))
    right = limit + (0,) * (width - len(limit))
    match bound[1]:
        case ">=":
            return left >= right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case "<":
            return left < right
        case _:
            return have[: len(limit)] == limit
