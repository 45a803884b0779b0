"""What messages of other programs mean: the rows of ailments/*.toml, and ch-run's own table beside them."""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ConfigError, NativeError
from chlaunch.launch.tables import Document, Key, Section, check, read

# ch-run's own codes are below; failure.c gives those.
FIRST_CODE = 1000

SECTIONS = (
    Section(
        "",
        repeated=False,
        keys=(Key("field", "text", "what the file's ailments have in common", required=True),),
        help="the file itself",
    ),
    Section(
        "ailment",
        repeated=True,
        keys=(
            Key("code", "text", "CH-NNNN, from 1000 on; never given to another", required=True),
            Key("title", "text", "the trouble, in a few words", required=True),
            Key("patterns", "texts", "regular expressions for a line of a log; case counts"),
            Key("words", "texts", "what people ask with who have no message; case does not count"),
            Key("cause", "text", "one or two sentences; {name} is a group of the pattern", required=True),
            Key("remedy", "text", "what to type", required=True),
            Key("versions", "text", "the releases that say or do it", required=True),
            Key("source", "text", "where that can be read up", required=True),
            Key("kin", "texts", "codes for the same trouble seen by another program"),
            Key("general", "boolean", "a mere symptom: told after all others"),
            Key("repeated", "boolean", "in a log only a sign if it is there twice"),
        ),
        help="a message, or a trouble without one",
    ),
)

_CODE = re.compile(r"CH-\d{4}")


@dataclass(frozen=True)
class Ailment:
    """A row. Without patterns and words it is one of ch-run's own errors, known by its code and message."""

    code: str
    title: str
    field: str
    cause: str
    remedy: str
    versions: str
    source: str
    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    kin: tuple[str, ...] = ()
    general: bool = False
    repeated: bool = False

    @property
    def is_native(self) -> bool:
        """Say whether ch-run itself has this code."""
        return int(self.code.removeprefix("CH-")) < FIRST_CODE


def load() -> tuple[Ailment, ...]:
    """Return the ailments we know, in the order of their codes.

    Raises:
        ConfigError: one of the files is not as SECTIONS says, or two have the same code.

    """
    directory = Path(__file__).parent.parent / "ailments"
    found = [row for path in sorted(directory.glob("*.toml")) for row in parse(path)]
    codes = [row.code for row in found]
    for code in codes:
        if codes.count(code) > 1:
            raise ConfigError(f"ailments: {code} is there twice")
    return tuple(sorted(found, key=lambda row: row.code))


def parse(path: Path) -> tuple[Ailment, ...]:
    """Return the ailments in the file at path.

    Raises:
        ConfigError: the file is not as SECTIONS says.

    """
    document = read(path, f"ailments/{path.name}")
    check(document, SECTIONS)
    return tuple(_ailment(document, index) for index, _ in document.tables("ailment"))


def _ailment(document: Document, index: int) -> Ailment:
    """Return one row.

    Raises:
        ConfigError: its code is not one, or there is nothing to recognise it by.

    """
    table = document.data["ailment"][index]
    code = table["code"]
    if not _CODE.fullmatch(code) or int(code[3:]) < FIRST_CODE:
        raise ConfigError(
            f"{document.where('ailment', index, 'code')}: code is CH-NNNN, from {FIRST_CODE} on: {code}"
        )
    if not table.get("patterns") and not table.get("words"):
        raise ConfigError(f"{document.where('ailment', index)}: {code} needs patterns or words")
    return Ailment(
        code=code,
        title=table["title"],
        field=document.data["field"],
        cause=table["cause"],
        remedy=table["remedy"],
        versions=table["versions"],
        source=table["source"],
        patterns=tuple(table.get("patterns", ())),
        words=tuple(table.get("words", ())),
        kin=tuple(table.get("kin", ())),
        general=table.get("general", False),
        repeated=table.get("repeated", False),
    )


def native(ch_run: str) -> tuple[Ailment, ...]:
    """Return the errors of the ch-run at that path, from its own table.

    Raises:
        NativeError: it can't be run, or does not know --errors.

    """
    try:
        done = subprocess.run(
            [ch_run, "--errors", "--json"], capture_output=True, check=True, text=True, timeout=10
        )
        rows = json.loads(done.stdout)
        found = tuple(_native(row["code"], row["exit"], row["message"], row["remedy"]) for row in rows)
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        raise NativeError(f"{ch_run} does not tell its errors: {error}", "install chlaunch again") from error
    if not found:
        raise NativeError(f"{ch_run} does not tell its errors: it has none", "install chlaunch again")
    return found


def _native(code: str, exit_code: int, message: str, remedy: str) -> Ailment:
    """Return one of ch-run's own rows in our form."""
    ends = f"it ends with {exit_code}" if exit_code else "it starts the command all the same"
    return Ailment(
        code=code,
        title=message,
        field="ch-run",
        cause=f"ch-run itself says this, and {ends}.",
        remedy=remedy,
        versions="the ch-run that is installed here",
        source="chlaunch-errors(7)",
    )


def by_code(catalogue: Iterable[Ailment], text: str) -> Ailment | None:
    """Return the row whose code text is, in capitals or not, with brackets or not."""
    code = text.strip().strip("[]").upper()
    return next((row for row in catalogue if row.code == code), None)
