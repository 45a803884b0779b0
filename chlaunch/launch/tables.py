"""TOML files whose every value knows the file and line it stands in, checked against a schema.

tomllib gives values without positions, so lines are found by a second, simple look at the text. It knows
headers and keys at the start of a line, which is how people and our own files write TOML; what it misses is
reported as the table's first line, never wrongly accepted.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chlaunch.errors import ConfigError

_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]\]?")
_KEY = re.compile(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*=")

_KINDS = {"text": "a string", "texts": "a list of strings", "boolean": "true or false"}


@dataclass(frozen=True)
class Row:
    """A value, why it is so, and where that was said: ``file:line``, an option, a variable, "this host"."""

    value: str
    reason: str
    origin: str


@dataclass(frozen=True)
class Key:
    """One key of a section. Kinds: text, texts (a list of strings), boolean."""

    name: str
    kind: str
    help: str
    required: bool = False


@dataclass(frozen=True)
class Section:
    """One table of a file, ``[name]``, or ``[[name]]`` if it may stand there more than once."""

    name: str
    repeated: bool
    keys: tuple[Key, ...]
    help: str


@dataclass(frozen=True)
class Document:
    """One file that was read: the name it is spoken of by, what it holds, and the line of each key."""

    label: str
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, int, str], int] = field(default_factory=dict)

    def where(self, section: str, index: int = 0, key: str = "") -> str:
        """Return ``file:line`` of a key, or of the header of its table if the key was not found."""
        line = self.lines.get((section, index, key)) or self.lines.get((section, index, "")) or 1
        return f"{self.label}:{line}"

    def tables(self, section: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Give the tables of a section, numbered from 0."""
        yield from enumerate(_as_tables(self.data.get(section, ())))


def read(path: Path, label: str) -> Document:
    """Return what the TOML file at path holds.

    Raises:
        ConfigError: it can't be read, or is not TOML (with the line tomllib names).

    """
    import tomllib  # noqa: PLC0415  3 ms; a probe of the options table should not pay for it

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't read {label}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label}: not UTF-8: {error.reason}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_invalid(label, text, str(error))) from error
    return Document(label, data, dict(_positions(text)))


def check(document: Document, sections: tuple[Section, ...]) -> None:
    """Check document against sections; the one without a name holds the keys above all headers.

    Raises:
        ConfigError: naming file, line and the nearest known name, if document has what sections do not.

    """
    known = {section.name: section for section in sections if section.name}
    top = next(
        (section for section in sections if not section.name), Section("", repeated=False, keys=(), help="")
    )
    for name, value in document.data.items():
        where = document.where("", 0, name) if not _as_tables(value) else document.where(name)
        if name in known and (not _as_tables(value) or isinstance(value, list) != known[name].repeated):
            raise ConfigError(f"{where}: {name} is written {_header(known[name])}")
        if name not in known and name not in {key.name for key in top.keys}:
            raise _unknown(where, name, [*known, *(key.name for key in top.keys)])
    _check_table(
        document, top, 0, {name: value for name, value in document.data.items() if name not in known}
    )
    for section in known.values():
        for index, table in document.tables(section.name):
            _check_table(document, section, index, table)


def _check_table(document: Document, section: Section, index: int, table: Mapping[str, Any]) -> None:
    """Check the keys of one table: known, of the right kind, and none missing."""
    keys = {key.name: key for key in section.keys}
    for name, value in table.items():
        where = document.where(section.name, index, name)
        if name not in keys:
            raise _unknown(where, name, list(keys), f" in {_header(section)}" if section.name else "")
        if not _is_kind(value, keys[name].kind):
            raise ConfigError(f"{where}: {name} must be {_KINDS[keys[name].kind]}")
    for key in section.keys:
        if key.required and key.name not in table:
            raise ConfigError(f"{document.where(section.name, index)}: {_header(section)} needs {key.name}")


def _unknown(where: str, name: str, known: list[str], place: str = "") -> ConfigError:
    """Return the error for a name nobody knows, with the nearest that somebody does."""
    import difflib  # noqa: PLC0415  only when there is an error to word

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return ConfigError(f"{where}: unknown key {name}{place}", hint)


def _is_kind(value: object, kind: str) -> bool:
    """Say whether a TOML value is of one of our kinds."""
    if kind == "texts":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, bool if kind == "boolean" else str)


def _header(section: Section) -> str:
    """Return how a section's header is written in TOML."""
    return f"[[{section.name}]]" if section.repeated else f"[{section.name}]"


def _as_tables(value: object) -> list[Mapping[str, Any]]:
    """Return value as the tables it is: one, several, or none if it is something else."""
    if isinstance(value, dict):
        return [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):
        return list(value)
    return []


def _positions(text: str) -> Iterator[tuple[tuple[str, int, str], int]]:
    """Give ((section, number of the table, key), line) for what text holds; key "" is the table's header."""
    section, count = "", {"": 0}
    in_string = ""
    for number, line in enumerate(text.splitlines(), 1):
        quotes = [mark for mark in ('"""', "'''") if line.count(mark) % 2]
        inside = in_string
        if quotes:
            in_string = "" if in_string in quotes else in_string or quotes[0]
        if inside:
            continue
        if found := _HEADER.match(line):
            section = found[2]
            count[section] = count.get(section, -1) + 1
            yield (section, count[section], ""), number
        elif found := _KEY.match(line):
            yield (section, count[section], found[1]), number


def _invalid(label: str, text: str, complaint: str) -> str:
    """Return tomllib's complaint with the line where compilers put it.

    tomllib ends its messages with "(at line 3, column 7)" or "(at end of document)".
    """
    found = re.search(r"^(.*) \(at line (\d+), column \d+\)$", complaint)
    if found:
        return f"{label}:{found[2]}: not TOML: {found[1]}"
    return f"{label}:{len(text.splitlines())}: not TOML: {complaint}"
