"""MPI flavours: what each MPI looks like, what can start it, what it must see and be told. One file each."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from chlaunch.launch.tables import Document, Key, Row, Section, check, read

_REASON = Key("reason", "text", "why", required=True)
_SOURCE = Key("source", "text", "where that can be read up", required=True)
_LAUNCHERS = Key("launchers", "texts", "launchers it is for", required=True)

SECTIONS = (
    Section(
        "",
        repeated=False,
        keys=(
            Key("name", "text", "the file's name", required=True),
            Key("title", "text", "what people call it", required=True),
            Key("library", "text", "the library its programs load", required=True),
            Key(
                "programs",
                "texts",
                "directories, or globs of such, where images keep its mpirun",
                required=True,
            ),
        ),
        help="the flavour itself",
    ),
    Section(
        "release",
        repeated=True,
        keys=(
            Key("library", "text", "glob for the library's file", required=True),
            Key("version", "text", "the release series that has it", required=True),
            _SOURCE,
        ),
        help="how to tell its releases",
    ),
    Section(
        "wire-up",
        repeated=True,
        keys=(
            Key("launcher", "text", "what can start its ranks", required=True),
            Key("plugin", "text", "with srun: the value for --mpi="),
            _REASON,
            _SOURCE,
        ),
        help="what can start its ranks, best first",
    ),
    Section(
        "bind",
        repeated=True,
        keys=(
            Key("path", "text", "path or $NAME, bound where it exists", required=True),
            _LAUNCHERS,
            _REASON,
            _SOURCE,
        ),
        help="what its ranks must see",
    ),
    Section(
        "variable",
        repeated=True,
        keys=(
            Key("name", "text", "variable, set unless it is set", required=True),
            Key("value", "text", "its value", required=True),
            _LAUNCHERS,
            Key("releases", "texts", "release series it is for; default: all"),
            _REASON,
            _SOURCE,
        ),
        help="what it must be told",
    ),
)


@dataclass(frozen=True)
class WireUp:
    """A launcher that can start this flavour's ranks, with srun's --mpi=plugin."""

    launcher: str
    plugin: str
    row: Row


@dataclass(frozen=True)
class Need:
    """Something a launch must add for this flavour: a path to bind, or a variable with its value."""

    launchers: tuple[str, ...]
    releases: tuple[str, ...]
    value: str
    row: Row


@dataclass(frozen=True)
class Flavour:
    """One MPI. library: the name (soname) that its programs ask for; releases: file glob and version."""

    name: str
    title: str
    library: str
    programs: tuple[str, ...] = ()
    releases: tuple[tuple[str, str], ...] = ()
    wire_ups: tuple[WireUp, ...] = ()
    binds: tuple[Need, ...] = ()
    variables: tuple[Need, ...] = ()

    def version(self, file_name: str) -> str:
        """Return the release series whose library is a file of this name; empty if none is known to be."""
        return next((version for glob, version in self.releases if fnmatchcase(file_name, glob)), "")


def load() -> tuple[Flavour, ...]:
    """Return all flavours we have, in the order of their names.

    Raises:
        ConfigError: one of the files is not as SECTIONS says.

    """
    directory = Path(__file__).parent.parent / "flavours"
    return tuple(parse(path) for path in sorted(directory.glob("*.toml")))


def parse(path: Path) -> Flavour:
    """Return the flavour in the file at path.

    Raises:
        ConfigError: the file is not as SECTIONS says.

    """
    document = read(path, f"flavours/{path.name}")
    check(document, SECTIONS)
    data = document.data
    return Flavour(
        name=data["name"],
        title=data["title"],
        library=data["library"],
        programs=tuple(data["programs"]),
        releases=tuple((table["library"], table["version"]) for _, table in document.tables("release")),
        wire_ups=tuple(
            WireUp(table["launcher"], table.get("plugin", ""), _row(document, "wire-up", index))
            for index, table in document.tables("wire-up")
        ),
        binds=_needs(document, "bind", "path"),
        variables=_needs(document, "variable", "name"),
    )


def _needs(document: Document, section: str, key: str) -> tuple[Need, ...]:
    """Return the rows of a section that a launch adds something for."""
    return tuple(
        Need(
            tuple(table["launchers"]),
            tuple(table.get("releases", ())),
            table.get("value", ""),
            _row(document, section, index, key),
        )
        for index, table in document.tables(section)
    )


def _row(document: Document, section: str, index: int, key: str = "launcher") -> Row:
    """Return a table's value under key, with its reason and place."""
    table = document.data[section][index]
    return Row(table[key], table["reason"], document.where(section, index))
