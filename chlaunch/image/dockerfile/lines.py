"""From the bytes of a Dockerfile to its statements: directives, comments, continued lines, here-documents."""

from dataclasses import dataclass, replace

from chlaunch.image.dockerfile import forms, grammar
from chlaunch.image.dockerfile.place import Place, Remark, Source

# Larger than anything that people or generators write.
FILE_MOST = 1 << 20
STATEMENTS_MOST = 10_000
# Of one instruction without its here-documents: Linux takes no longer argument (MAX_ARG_STRLEN, execve(2)).
STATEMENT_MOST = 128 << 10

DIRECTIVES = ("syntax", "escape", "check")

# Instructions that have here-documents; those of ONBUILD's instruction are ONBUILD's.
HAVE_HEREDOCS = ("RUN", "COPY", "ADD")

# These take rsync's options as they are, also such as begin with two hyphens.
NO_FLAGS = ("RSYNC", "NSYNC")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Heredoc:
    """A here-document.

    written: ``<<"NAME"``. expand: variables have values. strip: ``<<-``, without leading tabs.
    """

    name: str
    body: str
    expand: bool
    strip: bool
    written: str

    @property
    def content(self) -> str:
        """Return what it contains, without the tabs that do not count."""
        if not self.strip:
            return self.body
        return "\n".join(line.lstrip("\t") for line in self.body.split("\n"))


@dataclass(frozen=True)
class Flag:
    """A flag as it was given, without quotes, and with its hyphens. offset: in the original."""

    text: str
    offset: int


@dataclass(frozen=True)
class Statement:
    """An instruction whose arguments are not looked at yet.

    name: in upper case. offset: of text in the original.
    """

    place: Place
    name: str
    flags: tuple[Flag, ...]
    text: str
    offset: int
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True)
class Read:
    """What a file consists of."""

    source: Source
    directives: dict[str, str]
    statements: tuple[Statement, ...]
    remarks: tuple[Remark, ...]


def read(data: bytes, name: str) -> Read:
    """Return the statements of a Dockerfile. name: the file's, for messages.

    Raises:
        BuildError: too large, a NUL byte, a directive twice or of no meaning, a here-document without an end.

    """
    raw = data.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape").split("\n")
    raw = raw[:-1] if not raw[-1] else raw
    source = Source(name, tuple(line.rstrip("\r") for line in raw))
    if len(data) > FILE_MOST:
        raise source.wrong(1, 1, f"the file is larger than {FILE_MOST} bytes")
    for number, line in enumerate(source.lines, 1):
        if "\0" in line:
            raise source.wrong(number, line.index("\0") + 1, "a NUL byte: this is no text")
    directives = _directives(source)
    source = replace(source, escape=directives.get("escape", source.escape))
    statements, remarks = _Reader(source, raw).run()
    if not statements:
        raise source.wrong(1, 1, "there is no instruction")
    return Read(source, directives, tuple(statements), tuple(remarks))


def _directives(source: Source) -> dict[str, str]:
    """Return the directives, which stand before everything else, comments included."""
    found: dict[str, str] = {}
    for number, line in enumerate(source.lines, 1):
        try:
            key, value = (piece.text for piece in grammar.tokens("directive", line.rstrip()))
        except grammar.UnreadableError:
            break
        key = key.lower()
        if key not in DIRECTIVES:
            break
        if key in found:
            raise source.wrong(number, 1, f"the directive {key} a second time")
        if key == "escape" and value not in ("\\", "`"):
            raise source.wrong(
                number, line.index("=") + 2, "the escape character is a backslash or a backtick"
            )
        found[key] = value
    return found


class _Reader:
    """Goes through the lines once.

    raw: lines with their carriage returns. at: the next line, counted from 0.
    """

    def __init__(self, source: Source, raw: list[str]) -> None:
        self.source = source
        self.raw = raw
        self.at = 0
        self.remarks: list[Remark] = []

    def run(self) -> tuple[list[Statement], list[Remark]]:
        """Return all statements, and what is to be said of them."""
        statements: list[Statement] = []
        while self.at < len(self.source.lines):
            line = self.source.lines[self.at].lstrip()
            if not line or line.startswith("#"):
                self.at += 1
                continue
            first = self.at + 1
            place = self.joined()
            if not place.original:
                continue
            if len(place.original) > STATEMENT_MOST:
                raise place.wrong(f"the instruction is longer than {STATEMENT_MOST} characters")
            statement = split(place)
            heredocs = self.heredocs(statement)
            place = replace(place, line=first, last=self.at)
            statements.append(replace(statement, place=place, heredocs=heredocs))
            if len(statements) > STATEMENTS_MOST:
                raise place.wrong(f"there are more than {STATEMENTS_MOST} instructions")
        return statements, self.remarks

    def joined(self) -> Place:
        """Return the place of the instruction that begins here, with the lines it continues on."""
        first = self.at + 1
        texts: list[str] = []
        parts = []
        length = empty = 0
        more = True
        while more and self.at < len(self.source.lines):
            line = self.source.lines[self.at]
            self.at += 1
            stripped = line.lstrip()
            if texts and not stripped:
                # Deprecated; the lines at the end of a file are nobody's.
                empty = empty or self.at
                continue
            if texts and stripped.startswith("#"):
                continue
            text, more = self.continued(line if length else stripped)
            parts.append((length, self.at, 0 if length else len(line) - len(stripped)))
            texts.append(text)
            length += len(text)
            if empty and empty < self.at:
                self.remarks.append(Remark(empty, "an empty line within an instruction; remove it"))
                empty = 0
        return Place(self.source, first, self.at, "".join(texts).rstrip(), tuple(parts))

    def continued(self, line: str) -> tuple[str, bool]:
        """Return a line without the escape character that continues it, and whether it had one."""
        text = line.rstrip(" \t")
        escape = self.source.escape
        if text.endswith(escape) and not text.endswith(escape * 2):
            return text[:-1], True
        return line, False

    def heredocs(self, statement: Statement) -> tuple[Heredoc, ...]:
        """Return the here-documents of a statement, which follow it in the order they are named."""
        found = []
        for written in _named(statement):
            name, expand, strip = heredoc_name(written)
            body = self.body(name, strip=strip)
            if body is None:
                hint = f"a line must say {name} and nothing else" + (", after tabs at most" if strip else "")
                raise statement.place.wrong(f"the here-document {name} has no end", written, hint)
            found.append(Heredoc(name, body, expand, strip, written))
        return tuple(found)

    def body(self, name: str, *, strip: bool) -> str | None:
        """Return the lines up to the one that is a here-document's name; None if there is none."""
        first = self.at
        while self.at < len(self.raw):
            line = self.source.lines[self.at]
            self.at += 1
            if (line.lstrip("\t") if strip else line) == name:
                body = self.raw[first : self.at - 1]
                if any(text.endswith("\r") for text in body):
                    self.remarks.append(
                        Remark(first + 1, f"the here-document {name} has lines that end in CR LF")
                    )
                return "".join(f"{text}\n" for text in body)
        return None


def split(place: Place) -> Statement:
    """Return the statement of an instruction: its name, its flags, and the rest.

    Flags are read as BuildKit does: a backslash escapes in them, whatever ``# escape`` says.
    """
    rule = "bare" if place.original[:5].upper() in NO_FLAGS else "instruction"
    name, *others = grammar.tokens(rule, place.original)
    flags: list[Flag] = []
    text, offset = "", len(place.original)
    for piece in others:
        if piece.kind == "FLAG":
            flags.append(Flag("--", piece.offset))
        elif piece.kind == "TEXT":
            text, offset = piece.text, piece.offset
        elif piece.kind != "END_OF_FLAGS":
            flags[-1] = replace(flags[-1], text=flags[-1].text + unquoted(piece.kind, piece.text))
    return Statement(place, name.text.upper(), tuple(flags), text, offset)


def unquoted(kind: str, token: str) -> str:
    """Return what a piece of a flag or of a here-document's name is. kind: its terminal in the grammar."""
    if kind.endswith("_PLAIN"):
        return token
    if kind.endswith("_ESCAPED"):
        return token[1:]
    quote, characters, inner = token[0], iter(token[1:]), ""
    for character in characters:
        if character == quote:
            break
        escaped = character == "\\" and not (kind == "END_QUOTED" and quote == "'")
        inner += next(characters, "") if escaped else character
    return inner


def _named(statement: Statement) -> list[str]:
    """Return the here-documents that a statement names, as they are written there."""
    if statement.name == "ONBUILD" and statement.text:
        inner = split(
            Place(statement.place.source, statement.place.line, statement.place.last, statement.text)
        )
        return _named(inner) if inner.name != "ONBUILD" else []
    if statement.name not in HAVE_HEREDOCS or "<<" not in statement.text:
        return []
    try:
        if forms.exec_form(statement.text) is not None:
            return []
        found = grammar.tokens("shell", statement.text)
    except (forms.ArrayRefusedError, grammar.UnreadableError):
        return []  # what is wrong is said where it is used; an open quote is the shell's affair
    return [piece.text for piece in found if piece.kind == "HEREDOC"]


def heredoc_name(token: str) -> tuple[str, bool, bool]:
    """Return what ``<<-"NAME"`` says: the name, whether variables have values, whether leading tabs go."""
    name, expand, strip = "", True, False
    for piece in grammar.tokens("heredoc", token):
        if piece.kind == "TABS":
            strip = True
        elif piece.kind != "FILE_NUMBER":
            name += unquoted(piece.kind, piece.text)
            expand = expand and piece.kind != "END_QUOTED"
    return name, expand, strip
