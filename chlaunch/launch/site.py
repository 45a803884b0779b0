"""Site configurations: ours, the site's and the user's, checked, merged; every value remembers its file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ConfigError
from chlaunch.launch import options
from chlaunch.launch.options import Setting
from chlaunch.launch.tables import Document, Key, Row, Section, check, read

SITE_FILE = "/etc/chlaunch/site.toml"
OUR_FILE = "slurm-pmix.toml"

_REASON = Key("reason", "text", "why; printed by --ch-explain", required=True)
_SOURCE = Key("source", "text", "where that can be read up")
_ENABLED = Key("enabled", "boolean", "false: take out the row of an earlier file with the same first key")

SECTIONS = (
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


def load(environment: Mapping[str, str], site_file: str | None) -> Site:
    """Return what our file, the site's (site_file, if the user named one, else SITE_FILE) and the user's say.

    Raises:
        ConfigError: one is not readable, not TOML, or says what SECTIONS does not have; or the named one is
        missing.

    """
    documents = [(_checked(_our_file(), f"site-configs/{OUR_FILE}"), options.OURS)]
    site = Path(site_file or SITE_FILE)
    if site_file or site.exists():
        documents.append((_checked(site, str(site)), options.SITE))
    user = user_file(environment)
    if user is not None and user.exists():
        documents.append((_checked(user, str(user)), options.USER))
    return merge(documents)


def merge(documents: list[tuple[Document, int]]) -> Site:
    """Return checked documents, given weakest first with their strengths, as one site.

    A later row replaces an earlier one with the same path or variable.
    """
    only = [document for document, _ in documents]
    trees = {
        row.value: Tree(row, tuple(document.data["system-tree"][index].get("except", ())))
        for (document, index), row in _rows(only, "system-tree", "path")
    }
    return Site(
        layers=tuple(options.from_document(document, strength) for document, strength in documents),
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


def _our_file() -> Path:
    """Return the path of our own file: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    for place in (package / "site-configs", package.parent / "site-configs"):
        if (place / OUR_FILE).exists():
            return place / OUR_FILE
    raise ConfigError(
        f"can't find our own site-configs/{OUR_FILE} in or beside {package}", "install chlaunch again"
    )


def _checked(path: Path, label: str) -> Document:
    """Return the document at path after checking it."""
    document = read(path, label)
    check(document, SECTIONS)
    for section in ("filesystem", "system-tree"):
        for index, table in document.tables(section):
            if not table["path"].startswith("/") or ":" in table["path"]:
                where = document.where(section, index, "path")
                raise ConfigError(f"{where}: path must be absolute and have no colon: {table['path']}")
    return document


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
