"""The plain text that a line must have for a pattern to match, and one expression that finds all such texts.

An alternation of whole patterns is slow in every engine: Python's tries them one by one, RE2's automaton
grows without bound where patterns have counted gaps. Plain texts are found fast: RE2 walks its automaton, and
Python's engine skips to the few characters that texts begin with; so each is cut to begin with a rare one.
"""

import re
from collections.abc import Iterable

# What a needle keeps at least, in characters; shorter ones would be found where there is nothing.
LEAST = 8

# Lower-case letters from common to rare, as in English; what is not here is rarer, save blanks and digits.
_COMMON = "etaoinsrlhdcumfpgwybvkxjqz"

_ESCAPED = re.compile(r"\\([^A-Za-z0-9])")
_MARK = re.compile(r"\0(\d{3})")

_Trie = dict[str, "_Trie"]


def literal(pattern: str) -> str:
    """Return the longest run of plain characters that a match of pattern must have, groups left out."""
    text = _ESCAPED.sub(lambda found: f"\0{ord(found[1]):03d}", pattern)  # a plain character, whatever it is
    text = re.sub(r"\[[^\]]*\]|\\[a-zA-Z]", ".", text)
    while (outer := re.sub(r"\([^()]*\)", ".", text)) != text:
        text = outer
    text = re.sub(r"(?:\0\d{3}|.)(?:[?*]|\{[0-9,]*\})", ".", text)
    runs = [
        _MARK.sub(lambda found: chr(int(found[1])), run)
        for run in re.findall(r"(?:\0\d{3}|[^\0.|+^$])+", text)
    ]
    return max(runs, key=len, default="")


def needle(text: str) -> str:
    """Return the end of a literal that begins with its rarest character and is long enough."""
    starts = range(max(1, len(text) - LEAST + 1))
    return text[min(starts, key=lambda start: (_frequency(text[start]), start)) :]


def _frequency(letter: str) -> int:
    """Say how common a character is, for comparison."""
    if letter.isspace() or letter.isdigit():
        return 100
    at = _COMMON.find(letter)
    return 50 - at if at >= 0 else 1


def hidden(needles: Iterable[str]) -> dict[str, set[str]]:
    """Return for each needle, which may hide others by being found, those that may be there: itself and they.

    A search goes on behind what it found. So it passes over what is within it, what begins within it, and
    what goes on behind it.
    """
    texts = tuple(needles)
    beginning: dict[str, list[str]] = {}
    for text in texts:
        beginning.setdefault(text[:1], []).append(text)
    return {
        text: {
            other
            for at, letter in enumerate(text)
            for other in beginning.get(letter, ())
            if other.startswith(text[at:]) or text.startswith(other, at)
        }
        for text in texts
    }


def expression(needles: Iterable[str]) -> str:
    """Return one regular expression for all needles. Of two that begin alike the shorter is found."""
    root: _Trie = {}
    for text in needles:
        node = root
        for letter in text:
            node = node.setdefault(letter, {})
        node[""] = {}
    return _written(root)


def _written(node: _Trie) -> str:
    """Return the expression for the rest of the needles from a node on."""
    if "" in node:
        return ""
    branches = [re.escape(letter) + _written(rest) for letter, rest in sorted(node.items())]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
