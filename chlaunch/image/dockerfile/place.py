"""Where something stands in a Dockerfile, and how a failure there is worded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from chlaunch.errors import BuildError

# What a terminal shows of a line, around the caret; and of what is said of it, which may quote any word.
SHOWN_MOST = 72
SAID_MOST = 200

# What a word, or the value of an option, may stand behind.
WORD_BEFORE = " \t\v\f\r=,[\"'"

# What a URL's host, with user and password, ends at (RFC 3986, 3.2).
AUTHORITY_END = re.compile(r"[/?#\s\"']")


@dataclass(frozen=True)
class Remark:
    """Something to say of a Dockerfile that does not stop a build. line: counted from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Source:
    r"""A Dockerfile as it was read.

    name: for messages. lines: without their ends. escape: ``\`` or a backtick.
    """

    name: str
    lines: tuple[str, ...] = field(repr=False)
    escape: str = "\\"

    def wrong(
        self, line: int, column: int, why: str, hint: str = "", what: str = "can't parse"
    ) -> BuildError:
        """Return the failure for what stands at line and column, both counted from 1, with a caret."""
        text = masked(self.lines[line - 1]) if 0 < line <= len(self.lines) else ""
        start = max(0, min(column - 1 - SHOWN_MOST // 2, len(text) - SHOWN_MOST))
        before, after = _shown(text[start : column - 1]), _shown(text[column - 1 : start + SHOWN_MOST])
        pointed = f"{before}{after}\n{' ' * len(before)}^" if text else ""
        message = f"{what}: {_shown(self.name)}:{line}:{column}: {said(why)}"
        return BuildError(message, "\n".join(part for part in (said(hint), pointed) if part))


@dataclass(frozen=True)
class Place:
    """An instruction's place.

    line, last: its first and last line, here-documents included, counted from 1.
    original: its text with continued lines joined, without here-documents.
    parts: which pieces of lines original is made of: (offset in original, line, column counted from 0).
    """

    source: Source = field(repr=False, compare=False)
    line: int
    last: int
    original: str
    parts: tuple[tuple[int, int, int], ...] = field(default=(), repr=False, compare=False)

    def wrong(self, why: str, at: int | str = 0, hint: str = "", what: str = "can't parse") -> BuildError:
        """Return the failure for what stands at an offset of the original, or is the first such text."""
        offset = max(0, self.find(at)) if isinstance(at, str) else at
        line, column = self.line, 1
        for start, its_line, its_column in self.parts:
            if start <= offset:
                line, column = its_line, its_column + offset - start + 1
        return self.source.wrong(line, column, why, hint, what)

    def failed(self, why: str, at: int | str = 0, hint: str = "") -> BuildError:
        """Return the failure for what is well written and can't be done; see wrong()."""
        return self.wrong(why, at, hint, "build failed")

    @property
    def shown(self) -> str:
        """Return file and line, for messages."""
        return f"{self.source.name}:{self.line}"

    @property
    def told(self) -> str:
        """Return the original as it may be told to anybody and kept: without passwords in URLs."""
        return masked(self.original)

    def find(self, text: str) -> int:
        """Return the offset of a text in the original, after its name; -1 if it is not there."""
        start = self.original.find(" ") + 1
        first = at = self.original.find(text, start)
        # Rather where a word begins than in the middle of another.
        while at > 0 and self.original[at - 1] not in WORD_BEFORE:
            at = self.original.find(text, at + 1)
        return first if at < 0 else at

    def rest(self, offset: int) -> "Place":
        """Return the place of what follows an offset of the original: ONBUILD's instruction."""
        kept = [part for part in self.parts if part[0] > offset]
        before = [part for part in self.parts if part[0] <= offset][-1:]
        first = [(0, line, column + offset - start) for start, line, column in before]
        parts = (*first, *((start - offset, line, column) for start, line, column in kept))
        return Place(self.source, self.line, self.last, self.original[offset:], parts)


def masked(text: str) -> str:
    """Return text with a star for each character of the passwords of URLs; of http and https, of users, too.

    A user there may be a token; that of ssh is none.
    """
    pieces = text.split("://")
    for number, piece in enumerate(pieces[1:], 1):
        user, _, _ = AUTHORITY_END.split(piece, maxsplit=1)[0].rpartition("@")
        has_keys = pieces[number - 1].lower().endswith(("ssh", "git"))
        kept = (user.find(":") + 1 or len(user)) if has_keys else 0
        pieces[number] = user[:kept] + "*" * (len(user) - kept) + piece[len(user) :]
    return "://".join(pieces)


def said(text: str) -> str:
    """Return text as a terminal may have it, and not at any length."""
    shown = _shown(masked(text))
    return shown if len(shown) <= SAID_MOST else f"{shown[: SAID_MOST - 1]}…"


def _shown(text: str) -> str:
    """Return text as a terminal may have it: one column a character, nothing that moves the cursor."""
    plain = text.replace("\t", " ")
    return plain if plain.isprintable() else ascii(plain)[1:-1]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the one of several words that was probably meant; empty if none is near."""
    import difflib  # noqa: PLC0415  2 ms to load, and only for what is wrong

    return next(iter(difflib.get_close_matches(word[:40], list(known), 1)), "")
