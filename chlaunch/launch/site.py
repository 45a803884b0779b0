"""Site configurations: ours, the site's and the user's, checked, merged; every value remembers its file."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ConfigError
from chlaunch.launch import options
from chlaunch.launch.options import Setting
from chlaunch.launch.tables import Document, Key, Row, Section, check, read

SITE_FILE = "/etc/chlaunch/site.toml"

# Ours that is read for every launch; the others of site-configs/ are for sites to build on.
GENERIC = "generic"

# What the rows of a section are to a launch: settings of this option that have a reason of their own.
_AS_OPTION = {"bind": "bind-try", "variable": "env-default"}

# A path of the host that ch-run's --bind-try can name: absolute, or below a variable of the node.
_SOURCE_PATH = re.compile(r"(/|\$[A-Za-z_][A-Za-z0-9_]*(/|$))[^:]*")

_REASON = Key("reason", "text", "why; printed by --ch-explain", required=True)
_SOURCE = Key("source", "text", "where that can be read up")
_ENABLED = Key("enabled", "boolean", "false: take out the row of an earlier file with the same first key")

SECTIONS = (
    Section(
        "",
        repeated=False,
        keys=(
            Key("base", "texts", "files to build on, read before this one: names of ours, or absolute paths"),
        ),
        help="above all tables",
    ),
    Section("options", repeated=False, keys=options.keys(), help="what ch-launch takes as --ch-NAME"),
    Section(
        "filesystem",
        repeated=True,
        keys=(
            Key(
                "path",
                "text",
                "an absolute path of the host, shown at the same path in the container",
                required=True,
            ),
            _REASON,
            _SOURCE,
            _ENABLED,
        ),
        help="a file system bound into every container, on nodes that have it",
    ),
    Section(
        "bind",
        repeated=True,
        keys=(
            Key(
                "path",
                "text",
                "an absolute path of the host, or $NAME, a variable of the node",
                required=True,
            ),
            Key("target", "text", "an absolute path: where it appears in the container (default: path)"),
            _REASON,
            _SOURCE,
            _ENABLED,
        ),
        help="something smaller than a file system, bound where it exists",
    ),
    Section(
        "variable",
        repeated=True,
        keys=(
            Key(
                "name",
                "text",
                "a variable that ranks get unless the user, or the image, sets it",
                required=True,
            ),
            Key("value", "text", "its value, as it is (needed, but where enabled is false)"),
            _REASON,
            _SOURCE,
            _ENABLED,
        ),
        help="a variable that programs of every image should have here",
    ),
    Section(
        "unset",
        repeated=True,
        keys=(
            Key("variable", "text", "a variable's name, or a glob", required=True),
            _REASON,
            _SOURCE,
            _ENABLED,
        ),
        help="a variable that only makes sense on the host",
    ),
    Section(
        "system-tree",
        repeated=True,
        keys=(
            Key("path", "text", "an absolute path", required=True),
            Key("except", "texts", "paths below it that are bound all the same"),
            _REASON,
            _SOURCE,
            _ENABLED,
        ),
        help="a place where the image's files are wanted: the working directory is not bound there",
    ),
)


@dataclass(frozen=True)
class Tree:
    """A directory whose content belongs to the image, but for the paths excepted."""

    row: Row
    excepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """What the files say, merged. layers: the settings of ``[options]``, weakest file first."""

    layers: tuple[Mapping[str, tuple[Setting, ...]], ...] = ()
    filesystems: tuple[Row, ...] = ()
    unset: tuple[Row, ...] = ()
    trees: tuple[Tree, ...] = ()


def load(environment: Mapping[str, str], site_file: str | None, *, guarded: bool = False) -> Site:
    """Return what our generic file, the site's (site_file if named, else SITE_FILE) and the user's say.

    site_file is a path, or the name of one of ours. Before each file come those that it builds on. guarded:
    a file that others than root and the user can change is not read.

    Raises:
        ConfigError: one is not readable, not TOML, or says what SECTIONS does not have; the named one is
        missing; a base is none of ours, is missing, named twice, or builds on the file itself; or others can
        change one of guarded files.

    """
    files = [(_ours(GENERIC), options.OURS)]
    if site_file:
        files.append((_named(site_file), options.SITE))
    elif Path(SITE_FILE).exists():
        files.append((_File(Path(SITE_FILE), SITE_FILE), options.SITE))
    user = user_file(environment)
    if user is not None and user.exists():
        files.append((_File(user, str(user)), options.USER))
    found: dict[Path, tuple[Document, int]] = {}
    for file, strength in files:
        _gather(file, strength, (), found)
    for place in found if guarded else ():
        _check_owner(place)
    return merge(list(found.values()))


def merge(documents: list[tuple[Document, int]]) -> Site:
    """Return checked documents, given weakest first with their strengths, as one site.

    A later row replaces an earlier one with the same path or variable.
    """
    only = [document for document, _ in documents]
    rows = {section: _rows(only, section, key) for section, key in (("bind", "path"), ("variable", "name"))}
    trees = {
        row.value: Tree(row, tuple(document.data["system-tree"][index].get("except", ())))
        for (document, index), row in _rows(only, "system-tree", "path")
    }
    return Site(
        layers=tuple(_layer(document, strength, rows) for document, strength in documents),
        filesystems=tuple(row for _, row in _rows(only, "filesystem", "path")),
        unset=tuple(row for _, row in _rows(only, "unset", "variable")),
        trees=tuple(trees.values()),
    )


def user_file(environment: Mapping[str, str]) -> Path | None:
    """Return where the user's file would be (XDG base directory specification), None without a home."""
    base = environment.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base, "chlaunch", "config.toml")
    home = environment.get("HOME", "")
    return Path(home, ".config", "chlaunch", "config.toml") if home.startswith("/") else None


@dataclass(frozen=True)
class _File:
    """A file to read, and the name it is spoken of by."""

    path: Path
    label: str


def _directory() -> Path:
    """Return where our own files are: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    for place in (package / "site-configs", package.parent / "site-configs"):
        if (place / f"{GENERIC}.toml").exists():
            return place
    raise ConfigError(
        f"can't find our own site-configs/{GENERIC}.toml in or beside {package}", "install chlaunch again"
    )


def _ours(name: str) -> _File:
    """Return our own file of that name."""
    return _File(_directory() / f"{name}.toml", f"site-configs/{name}.toml")


def _is_ours(name: str) -> bool:
    """Say whether we have a file of that name."""
    return "/" not in name and _ours(name).path.is_file()


def _which_are_ours(name: str) -> str:
    """Return a hint for a name that is none of ours."""
    import difflib  # noqa: PLC0415  only when there is an error to word

    names = sorted(path.stem for path in _directory().glob("*.toml"))
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"ours are {', '.join(names)}"


def _named(text: str) -> _File:
    """Return the file that the user named: one of ours, which has no slash, or one at a path."""
    if _is_ours(text):
        return _ours(text)
    if "/" not in text and not Path(text).exists():
        raise ConfigError(
            f"can't read {text}: no such file here, and none of ours has that name", _which_are_ours(text)
        )
    return _File(Path(text), text)


def _gather(
    file: _File, strength: int, above: tuple[_File, ...], found: dict[Path, tuple[Document, int]]
) -> None:
    """Add to found what file builds on, and file itself: each once, where it is first asked for.

    above: the files that build on this one, outermost first.
    """
    place = file.path.resolve()
    if place in found:
        return
    document = _checked(file)
    above = (*above, file)
    for base in _bases(document):
        if any(base.path.resolve() == other.path.resolve() for other in above):
            chain = " -> ".join(other.label for other in (*above, base))
            raise ConfigError(f"{document.where('', 0, 'base')}: a file can't build on itself: {chain}")
        _gather(base, strength, above, found)
    found[place] = document, strength


def _bases(document: Document) -> list[_File]:
    """Return the files that a document builds on."""
    where = document.where("", 0, "base")
    names = document.data.get("base", [])
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: base has {name} twice", "name it once; the later file wins")
        if not name.startswith("/") and not _is_ours(name):
            hint = "write an absolute path" if "/" in name else _which_are_ours(name)
            raise ConfigError(f"{where}: base {name} is neither one of ours nor an absolute path", hint)
        if name.startswith("/") and not Path(name).is_file():
            raise ConfigError(f"{where}: base {name} is no file")
    return [_File(Path(name), name) if name.startswith("/") else _ours(name) for name in names]


def _check_owner(path: Path) -> None:
    """Raise ConfigError where others than root and the user can change a file; ours are as good as code."""
    status = path.stat()
    if path.parent == _directory().resolve():
        return
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{path}: not read, because it is neither yours nor root's", "make a copy of your own of it"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path}: not read, because others can change it", f"chmod go-w {path}")


def _checked(file: _File) -> Document:
    """Return the document in a file after checking it."""
    document = read(file.path, file.label)
    _check_base(document)
    check(document, SECTIONS)
    for section, key in (("filesystem", "path"), ("system-tree", "path"), ("bind", "target")):
        for index, table in document.tables(section):
            if key in table and (not table[key].startswith("/") or ":" in table[key]):
                where = document.where(section, index, key)
                raise ConfigError(f"{where}: {key} must be absolute and have no colon: {table[key]}")
    for index, table in document.tables("bind"):
        if not _SOURCE_PATH.fullmatch(table["path"]):
            where = document.where("bind", index, "path")
            raise ConfigError(
                f"{where}: path must be absolute, or begin with $NAME, and have no colon: {table['path']}"
            )
    _check_variables(document)
    return document


def _check_base(document: Document) -> None:
    """Raise ConfigError where base stands below a table's header, which makes it a key of that table."""
    for section in SECTIONS[1:]:
        for index, table in document.tables(section.name):
            if "base" in table:
                where = document.where(section.name, index, "base")
                raise ConfigError(f"{where}: base is no key of a table", "write it above all tables")


def _check_variables(document: Document) -> None:
    """Raise ConfigError for a variable that can't be one, or has no value."""
    for index, table in document.tables("variable"):
        if "=" in table["name"] or not table["name"]:
            where = document.where("variable", index, "name")
            raise ConfigError(f"{where}: no name of a variable: {table['name']}")
        if "value" not in table and table.get("enabled", True):
            raise ConfigError(f"{document.where('variable', index)}: [[variable]] needs value")


def _layer(
    document: Document, strength: int, rows: Mapping[str, list[tuple[tuple[Document, int], Row]]]
) -> Mapping[str, tuple[Setting, ...]]:
    """Return the settings of one document: its rows that none replaced, then its ``[options]``."""
    layer = options.from_document(document, strength)
    for section, option in _AS_OPTION.items():
        mine = tuple(
            Setting(_text(section, origin.data[section][index]), strength, row.origin, row.reason)
            for (origin, index), row in rows[section]
            if origin is document
        )
        layer[option] = (*mine, *layer.get(option, ()))
    return layer


def _text(section: str, table: Mapping[str, str]) -> str:
    """Return a row as the option's value: NAME=VALUE, or SRC[:DST]."""
    if section == "variable":
        return f"{table['name']}={table['value']}"
    return f"{table['path']}:{table['target']}" if "target" in table else table["path"]


def _rows(documents: list[Document], section: str, key: str) -> list[tuple[tuple[Document, int], Row]]:
    """Return the rows of a section with the table each is from; later files replace earlier ones by key."""
    found: dict[str, tuple[tuple[Document, int], Row]] = {}
    for document in documents:
        for index, table in document.tables(section):
            found.pop(table[key], None)
            if table.get("enabled", True):
                found[table[key]] = (
                    (document, index),
                    Row(table[key], table["reason"], document.where(section, index)),
                )
    return list(found.values())
