"""MPIs and message libraries: what they look like, what starts them, what they must see and be told."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from chlaunch.errors import ConfigError
from chlaunch.launch.flavour_schema import SECTIONS
from chlaunch.launch.tables import Document, Row, check, read
from chlaunch.launch.versions import is_range, within


@dataclass(frozen=True)
class WireUp:
    """A launcher that can start ranks, with srun's --mpi=plugin. hosts: versions of the host's mpirun."""

    launcher: str
    plugin: str
    versions: str
    hosts: str
    one_node: bool
    has: str
    row: Row


@dataclass(frozen=True)
class Need:
    """Something a launch must add: a path to bind, or a variable with its value. Empty conditions hold."""

    value: str
    row: Row
    launchers: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    versions: str = ""
    servers: str = ""
    sharing: str = ""
    lacks: str = ""
    tmp_hidden: bool = False


@dataclass(frozen=True)
class Conflict:
    """A value that a variable had better not have."""

    value: str
    versions: str
    sharing: str
    row: Row


@dataclass(frozen=True)
class Refusal:
    """A situation that can't go well with a library that has a feature."""

    has: str
    versions: str
    sharing: str
    remedy: str
    row: Row


@dataclass(frozen=True)
class Server:
    """A PMIx server that these versions of the library can't speak with."""

    servers: str
    versions: str
    slurm: str
    row: Row


@dataclass(frozen=True)
class Feature:
    """What some builds have: told by a text in the library, or by a file below its directory."""

    name: str
    text: str
    file: str


@dataclass(frozen=True)
class Embedded:
    """A flavour that is built into these versions of another."""

    name: str
    version: str
    versions: str


@dataclass(frozen=True)
class Flavour:
    """One MPI or message library; see SECTIONS."""

    name: str
    title: str
    libraries: tuple[str, ...]
    marks: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    mpi: bool = False
    programs: tuple[str, ...] = ()
    mpirun: tuple[str, ...] = ()
    hydra: bool = False
    features: tuple[Feature, ...] = ()
    embeds: tuple[Embedded, ...] = ()
    wire_ups: tuple[WireUp, ...] = ()
    binds: tuple[Need, ...] = ()
    variables: tuple[Need, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    servers: tuple[Server, ...] = ()

    def is_named(self, name: str) -> bool:
        """Say whether a library of that name may be this one."""
        return any(fnmatchcase(name, glob) for glob in self.libraries)

    def is_marked(self, text: bytes) -> bool:
        """Say whether the strings of a library are this one's."""
        marked = not self.marks or any(mark.encode() in text for mark in self.marks)
        return marked and not any(mark.encode() in text for mark in self.unless)

    def version(self, text: bytes) -> str:
        """Return the version in the strings of the library; empty if they have none."""
        found = (re.search(pattern.encode(), text) for pattern in self.patterns)
        return next((match[1].decode(errors="replace") for match in found if match), "")

    def starts(
        self, launcher: str, version: str, host: str = "", features: frozenset[str] = frozenset()
    ) -> tuple[WireUp, ...]:
        """Return the wire-ups of a launcher for a version, all if it is unknown; host: the mpirun's."""
        return tuple(
            wire
            for wire in self.wire_ups
            if wire.launcher == launcher
            and (not version or within(version, wire.versions))
            and (not host or within(host, wire.hosts))
            and (not wire.has or wire.has in features)
        )


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
    _check_ranges(document)
    data = document.data
    return Flavour(
        name=data["name"],
        title=data["title"],
        libraries=tuple(data["libraries"]),
        marks=tuple(data.get("marks", ())),
        unless=tuple(data.get("unless", ())),
        patterns=tuple(data.get("version", ())),
        mpi=data.get("mpi", False),
        programs=tuple(data.get("programs", ())),
        mpirun=tuple(data.get("mpirun", ())),
        hydra=data.get("hydra", False),
        features=tuple(
            Feature(table["name"], table["text"], table.get("file", ""))
            for _, table in document.tables("feature")
        ),
        embeds=tuple(
            Embedded(table["name"], table["version"], table.get("versions", ""))
            for _, table in document.tables("embeds")
        ),
        wire_ups=tuple(
            WireUp(
                table["launcher"],
                table.get("plugin", ""),
                table.get("versions", ""),
                table.get("hosts", ""),
                table.get("one-node", False),
                table.get("has", ""),
                _row(document, "wire-up", index, "launcher"),
            )
            for index, table in document.tables("wire-up")
        ),
        binds=_needs(document, "bind", "path"),
        variables=_needs(document, "variable", "name"),
        conflicts=tuple(
            Conflict(
                table["value"],
                table.get("versions", ""),
                table.get("sharing", ""),
                _row(document, "conflict", index, "variable"),
            )
            for index, table in document.tables("conflict")
        ),
        refusals=tuple(
            Refusal(
                table["has"],
                table.get("versions", ""),
                table.get("sharing", ""),
                table["remedy"],
                _row(document, "refusal", index, "has"),
            )
            for index, table in document.tables("refusal")
        ),
        servers=tuple(
            Server(
                table["servers"],
                table["versions"],
                table.get("slurm", ""),
                _row(document, "server", index, "servers"),
            )
            for index, table in document.tables("server")
        ),
    )


def _needs(document: Document, section: str, key: str) -> tuple[Need, ...]:
    """Return the rows of a section that a launch adds something for."""
    return tuple(
        Need(
            value=table.get("value", ""),
            row=_row(document, section, index, key),
            launchers=tuple(table.get("launchers", ())),
            plugins=tuple(table.get("plugins", ())),
            versions=table.get("versions", ""),
            servers=table.get("servers", ""),
            sharing=table.get("sharing", ""),
            lacks=table.get("lacks", ""),
            tmp_hidden=table.get("tmp-hidden", False),
        )
        for index, table in document.tables(section)
    )


def _row(document: Document, section: str, index: int, key: str) -> Row:
    """Return a table's value under key, with its reason and place."""
    table = document.data[section][index]
    return Row(table[key], table["reason"], document.where(section, index))


def _check_ranges(document: Document) -> None:
    """Raise ConfigError for a range of versions that is none, an expression that is none, or such sharing."""
    for section in SECTIONS[1:]:
        for index, table in document.tables(section.name):
            for key in ("versions", "servers", "hosts", "slurm"):
                if not is_range(table.get(key, "")):
                    raise _bad(
                        document, section.name, index, key, "bounds between spaces, such as >=4.0.2 <5"
                    )
            if table.get("sharing", "shared") not in ("shared", "separate"):
                raise _bad(document, section.name, index, "sharing", "shared or separate")
    for pattern in document.data.get("version", ()):
        try:
            groups = re.compile(pattern).groups
        except re.error:
            groups = 0
        if not groups:
            where = document.where("", 0, "version")
            raise ConfigError(f"{where}: version must be regular expressions with a group: {pattern}")


def _bad(document: Document, section: str, index: int, key: str, form: str) -> ConfigError:
    """Return the error for a value that is not of its form."""
    return ConfigError(f"{document.where(section, index, key)}: {key} must be {form}")


def by_name(flavours: Iterable[Flavour], name: str) -> Flavour | None:
    """Return the flavour of that name; None if there is none."""
    return next((flavour for flavour in flavours if flavour.name == name), None)
