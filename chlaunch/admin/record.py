"""What ch-site wrote, kept with the system's other state: so an admin's edit is told from ours."""

import hashlib
import json
from dataclasses import asdict, dataclass

from chlaunch.admin import places
from chlaunch.admin.places import Found, Root
from chlaunch.errors import ChlaunchError

DIRECTORY = "/var/lib/chlaunch"
PATH = f"{DIRECTORY}/site.json"
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A file that we wrote, or added to.

    part: what it is for, as parts.py names it. digests: SHA-256 of what it holds if nobody has changed it;
    two while a writing is under way. texts: what was added to a file that is the admin's, likewise; empty
    where all of the file is ours. created: there was none before. saved: where what we overwrote is kept, or
    empty.
    """

    path: str
    part: str
    digests: tuple[str, ...]
    texts: tuple[str, ...] = ()
    created: bool = True
    saved: str = ""


@dataclass(frozen=True)
class Record:
    """All that was written. directories: those we made, outermost first."""

    entries: tuple[Entry, ...] = ()
    directories: tuple[str, ...] = ()

    def entry(self, path: str) -> Entry | None:
        """Return the entry for a path."""
        return next((entry for entry in self.entries if entry.path == path), None)


def digest(content: bytes) -> str:
    """Return what names content."""
    return hashlib.sha256(content).hexdigest()


def load(root: Root) -> Record:
    """Return the record of root; an empty one if nothing was installed there.

    Raises:
        ChlaunchError: it can't be read, or is not ours.

    """
    found = places.read(root, PATH)
    if found is None:
        return Record()
    try:
        told = json.loads(found.content)
        if told["format"] != FORMAT:
            raise ChlaunchError(
                f"{root.shown(PATH)} has format {told['format']}", "another release of ch-site wrote it"
            )
        return Record(tuple(_entry(**row) for row in told["entries"]), tuple(map(str, told["directories"])))
    except (ValueError, LookupError, TypeError) as error:
        raise ChlaunchError(
            f"{root.shown(PATH)} is damaged: {error}",
            "it says which files ch-site wrote; restore it, or remove it and then those files by hand",
        ) from error


def _entry(  # noqa: PLR0913  the fields of a row
    *, path: str, part: str, digests: list[str], texts: list[str], created: bool, saved: str
) -> Entry:
    """Return the entry of a row."""
    return Entry(path, part, tuple(digests), tuple(texts), created=created, saved=saved)


def save(root: Root, record: Record) -> None:
    """Write the record.

    Raises:
        ChlaunchError: it can't be written.

    """
    before = places.read(root, PATH)
    told = {
        "format": FORMAT,
        "directories": record.directories,
        "entries": [asdict(entry) for entry in record.entries],
    }
    content = (json.dumps(told, indent=1) + "\n").encode()
    places.write(root, PATH, Found(content, 0o644, places.ourselves()), before.content if before else None)


def forget(root: Root, record: Record) -> None:
    """Remove the record, and the directories that were made."""
    before = places.read(root, PATH)
    if before is not None:
        places.remove(root, PATH, before.content)
    places.remove_directories(root, record.directories)
