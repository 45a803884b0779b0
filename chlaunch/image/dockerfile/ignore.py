"""What of a context is left out: .dockerignore, and COPY --exclude.

The patterns are Docker's (Dockerfile reference, ".dockerignore file"), relative to the context's root; a
leading slash means nothing. ``*`` is any text without a slash, ``?`` any character but it, ``[a-c]`` and
``[^a-c]`` are classes, a backslash quotes; ``**`` as a component is any number of directories, also none. A
pattern that matches a directory matches all below it. Patterns count in their order, the last one that
matches wins, and one that begins with ``!`` takes back in what those before it left out, also below a
directory that is left out.

Within a component, ``**`` is what it is at its ends: ``**.log`` is ``**/*.log``, and ``build**`` is
``build*``. Each star takes as little as lets the next piece fit, without trying anything else, so no pattern
is slow.
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from chlaunch.errors import BuildError
from chlaunch.image.dockerfile.place import said

BYTE_ORDER_MARK = "\ufeff"

# The name of a file is 255 bytes at most, a path 4096 (limits.h).
PATTERN_MOST = 4096

# Any number of directories, as few as will do.
ANYWHERE = "(?:[^/]+/)*?"


@dataclass(frozen=True)
class Rule:
    """One pattern. back: it takes back in. pattern: of the whole path, or of a directory above."""

    back: bool
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Ignore:
    """What is left out."""

    rules: tuple[Rule, ...] = ()

    def matches(self, path: str) -> bool:
        """Say whether path, relative to the context's root and without ``.`` and ``..``, is left out."""
        left_out = False
        for rule in self.rules:
            if rule.back == left_out and rule.pattern.match(path):
                left_out = not rule.back
        return left_out

    @property
    def takes_back(self) -> bool:
        """Say whether something below a directory that is left out may be in."""
        return any(rule.back for rule in self.rules)


def names(dockerfile: str) -> tuple[str, str]:
    """Return the names of files that may say what is left out, the first that exists counts.

    dockerfile: its path; the first name is beside it, the second in the context's root.
    """
    return f"{dockerfile}.dockerignore", ".dockerignore"


def parse(data: bytes, name: str) -> Ignore:
    """Return what a .dockerignore says. name: the file's, for messages.

    Raises:
        BuildError: a pattern that is none.

    """
    lines = data.decode("utf-8", "surrogateescape").removeprefix(BYTE_ORDER_MARK).split("\n")
    numbered = ((number, line) for number, line in enumerate(lines, 1) if not line.startswith("#"))
    return _ignore((f"{name}:{number}", line) for number, line in numbered)


def of_patterns(patterns: Iterable[str]) -> Ignore:
    """Return what COPY's --exclude leaves out. Raises BuildError for a pattern that is none."""
    return _ignore(("--exclude", pattern) for pattern in patterns)


def _ignore(patterns: Iterable[tuple[str, str]]) -> Ignore:
    """Return the rules of patterns. Each comes with where it stands."""
    rules = []
    for where, line in patterns:
        pattern = line.strip()
        if not pattern:
            continue
        back = pattern.startswith("!")
        pattern = pattern[back:].strip()
        if not pattern or len(pattern) > PATTERN_MOST:
            raise BuildError(f"{where}: {'! takes nothing back in' if not pattern else 'too long a pattern'}")
        cleaned = posixpath.normpath(pattern).lstrip("/")
        if cleaned in ("", "."):
            continue
        rules.append(Rule(back, _compiled(cleaned, where)))
    return Ignore(tuple(rules))


def _compiled(pattern: str, where: str) -> re.Pattern[str]:
    """Return the regular expression of a clean pattern, for the beginning of a path."""
    runs: list[list[str]] = [[]]  # of components, between double stars
    for component in pattern.split("/"):
        if component.startswith("**") and not component.strip("*"):
            runs.append([])
        elif component.startswith("**"):
            runs.append([_component(component[1:], where)])
        else:
            runs[-1].append(_component(component, where))
    # As each run may stand after any number of directories, its first place leaves most to those that follow.
    *above, last = ("/".join(run) for run in runs)
    text = "".join(f"(?>{ANYWHERE if number else ''}{run}/)" for number, run in enumerate(above) if run)
    if last:
        text += (ANYWHERE if above else "") + last + "(?:/|\\Z)"
    return re.compile(text, re.DOTALL)


def _component(component: str, where: str) -> str:
    """Return the regular expression of what stands between two slashes."""
    blocks = [""]
    at = 0
    while at < len(component):
        character = component[at]
        at += 1
        if character == "*":
            blocks.append("")
        elif character == "?":
            blocks[-1] += "[^/]"
        elif character == "[":
            text, at = _class(component, at, where)
            blocks[-1] += text
        else:
            if character == "\\":
                character, at = _quoted(component, at, where), at + 1
            blocks[-1] += re.escape(character)
    first, *others = blocks
    middle = "".join(f"(?>[^/]*?{block})" for block in others[:-1] if block)
    return first + middle + "".join(f"[^/]*{block}(?=/|\\Z)" for block in others[-1:])


def _class(component: str, at: int, where: str) -> tuple[str, int]:
    """Return the regular expression of a class whose first character stands at at, and where it ends."""
    negated = component[at : at + 1] == "^"
    at += negated
    ranges = ""
    while not ranges or component[at : at + 1] != "]":
        ends: list[str] = []
        while len(ends) < 2:  # noqa: PLR2004  a range has two ends
            character = _quoted(component, at, where)
            if character == "\\":
                at += 1
                character = _quoted(component, at, where)
            elif character in "]-":
                raise _wrong(component, where)
            ends.append(character)
            at += 1
            if len(ends) == 1 and component[at : at + 1] != "-":
                break
            at += len(ends) == 1
        if ends[0] > ends[-1]:
            raise _wrong(component, where)
        ranges += re.escape(ends[0]) + "".join(f"-{re.escape(end)}" for end in ends[1:])
    return f"(?!/)[{'^' * negated}{ranges}]", at + 1


def _quoted(component: str, at: int, where: str) -> str:
    """Return the character there. Raises BuildError if there is none."""
    if at >= len(component):
        raise _wrong(component, where)
    return component[at]


def _wrong(component: str, where: str) -> BuildError:
    """Return the failure for a component that is no pattern."""
    return BuildError(f"{said(where)}: no pattern: {said(component)}", "\\[ is a bracket, \\\\ a backslash")
