"""ADD of archives: what is in them goes into the image. What unpacks is loaded only here."""

import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from chlaunch.errors import ChlaunchError
from chlaunch.image.build import copying, sources
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin
from chlaunch.image.compress import pieces
from chlaunch.image.dockerfile import syntax
from chlaunch.image.unpack import Limits, settle, unpack
from chlaunch.trees import Directory


def unpacked(rows: list[Entry], directory: Path, goal: Goal, instruction: syntax.Add) -> list[Entry]:
    """Return entries with the archives that words mean replaced by what is in them.

    Those from a URL only with --unpack; never what lies in a directory that is copied.
    """
    result: list[Entry] = []
    for number, row in enumerate(rows):
        wanted = instruction.unpack if instruction.unpack is not None else "://" not in row.origin.shown
        if not (
            wanted and row.named and stat.S_ISREG(row.mode) and row.content is None and is_archive(row.open)
        ):
            result.append(row)
            continue
        tree = directory / f"archive{number}"
        tree.mkdir(mode=0o755)
        shown = "/".join(row.parts)
        unpack_all(row.open, tree, shown)
        origin = Origin(Directory(str(tree)), shown)
        into = copying.place_of(goal.image, goal.target)
        result += [
            entry for entry in sources.entries(origin, (), tree.stat(), into, ()) if entry.names != into
        ]
    return result


def unpack_all(opened: Callable[[], BinaryIO], tree: Path, shown: str) -> None:
    """Make what is in an archive in an empty directory. Raises ImageError if it is damaged or hostile."""
    with opened() as stream:
        unpacked = unpack(stream, tree, Limits(), overlay=False, shown=shown)
    settle(tree, unpacked, ())


def opener(path: Path) -> Callable[[], BinaryIO]:
    """Return what opens a file."""
    return lambda: path.open("rb")


def is_archive(opened: Callable[[], BinaryIO]) -> bool:
    """Say whether a file is a tar archive, compressed or not, by what is in it, as Docker does."""
    try:
        with opened() as stream:
            first = b""
            for piece in pieces(stream, "archive"):
                first += piece
                if len(first) >= tarfile.BLOCKSIZE:
                    break
        tarfile.TarInfo.frombuf(first[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (OSError, ChlaunchError, tarfile.HeaderError):
        return False
    return True
