"""What COPY and ADD bring: the files that their words name, where each goes, and a digest of all of it.

Words are paths in the build context, or in a stage or image. Links on the way to a source are followed,
inside of that; links below it are copied as links. A directory brings what is in it, not itself.

What a large file has is remembered by what stat(2) says of it, unless it was just changed: then it could be
changed again within what the clock tells apart.
"""

import hashlib
import os
import posixpath
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from chlaunch.errors import BuildError
from chlaunch.image.dockerfile import ignore
from chlaunch.image.dockerfile.ignore import Ignore
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.records import read
from chlaunch.rootfs import Rootfs, over
from chlaunch.trees import Directory, Parts, Stack, is_whiteout, stamp

READ_SIZE = 1 << 20
GLOB = "*?["

# Of files with less, in bytes, nothing is remembered: reading them is as fast.
REMEMBERED_LEAST = 1 << 20
# Nanoseconds that a file must not have changed for.
AGE_LEAST = 2_000_000_000
DIGEST = re.compile(r"[0-9a-f]{64}")


Tree = Directory | Stack
Found = tuple[Parts, os.stat_result, str]


@dataclass(frozen=True)
class Origin:
    """A context, a stage, or an image. shown: its name, for messages. left_out: what does not count in it."""

    tree: Tree
    shown: str
    left_out: Ignore = field(default_factory=Ignore)


@dataclass(frozen=True)
class Entry:
    """A file, directory or link on its way. names: where it goes, from the image's root. parts: where it is.

    mode: st_mode, as it will be. time: its st_mtime, in ns. content: instead of a file's own. stamp: what
    changes when a file does. named: a word means it, not a directory above.
    """

    names: Parts
    origin: Origin
    parts: Parts
    mode: int
    time: int
    content: bytes | None = None
    stamp: str = ""
    named: bool = False

    def open(self) -> BinaryIO:
        """Open the file."""
        return self.origin.tree.open(self.parts)


@dataclass(frozen=True)
class Wanted:
    """What an instruction asks for. excludes: patterns below the sources. parents: keep directories above."""

    words: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    parents: bool = False


def found(origin: Origin, wanted: Wanted, place: Place) -> list[Found]:
    """Return the sources that words name: where each is, what it is, and its name below the destination.

    Raises:
        BuildError: there is none for a word, or it lies outside.

    """
    rows: list[Found] = []
    for word in wanted.words:
        before = len(rows)
        for path in matching(origin, word, place):
            rootfs = over(origin.tree, origin.shown)
            real = rootfs.locate(path)
            status = None if real is None else origin.tree.status(_parts(real))
            if real is not None and status is not None and not _is_left_out(origin, real, status):
                rows.append((_parts(real), status, _kept(word, path, parents=wanted.parents)))
        # That a pattern matches nothing is fine, as in BuildKit.
        if len(rows) == before and not any(sign in word for sign in GLOB):
            why = "it is left out by .dockerignore" if _exists(origin, word) else f"not in {origin.shown}"
            raise place.failed(f"{word}: {why}", word, f"sources are paths relative to {origin.shown}")
    return rows


def entries(
    origin: Origin, parts: Parts, status: os.stat_result, names: Parts, excludes: Sequence[str]
) -> Iterator[Entry]:
    """Give a source with all that is below it, directories before what is in them, sorted.

    Raises:
        BuildError: part of it can't be read.

    """
    unwanted = ignore.of_patterns(excludes) if excludes else Ignore()
    yield from _walk(origin, parts, status, names, (unwanted, len(parts)))


def digest(rows: Sequence[Entry], known: Path | None) -> str:
    """Return the digest of what entries bring. Times are no part of it: they say nothing of the content.

    known: a directory for digests of large files; it need not be there.

    Raises:
        BuildError: a file can't be read.

    """
    total = hashlib.sha256()
    for row in rows:
        kind, what = stat.S_IFMT(row.mode), b""
        if stat.S_ISLNK(row.mode):
            what = os.fsencode(row.origin.tree.target(row.parts))
        elif stat.S_ISREG(row.mode):
            what = (
                hashlib.sha256(row.content).digest() if row.content is not None else _digest_file(row, known)
            )
        name = "/".join(row.names).encode("utf-8", "surrogateescape")
        total.update(
            b"%d %o %d %s %d %s\n" % (kind, stat.S_IMODE(row.mode), len(name), name, len(what), what)
        )
    return total.hexdigest()


def stamps(rows: Sequence[Entry]) -> list[tuple[object, ...]]:
    """Return what differs when one of the files does."""
    return [(row.parts, row.mode, row.stamp) for row in rows]


def _walk(
    origin: Origin, parts: Parts, status: os.stat_result, names: Parts, unwanted: tuple[Ignore, int]
) -> Iterator[Entry]:
    mode = status.st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or is_whiteout(status):
        return  # sockets, devices and pipes are nobody's content
    rules, top = unwanted
    below = "/".join(parts[top:])
    is_out = _is_left_out(origin, "/".join(parts), status) or bool(below and rules.matches(below))
    if not is_out:
        yield Entry(
            names,
            origin,
            parts,
            mode,
            status.st_mtime_ns,
            stamp="" if stat.S_ISDIR(mode) else stamp(status),
        )
    if not stat.S_ISDIR(mode) or (is_out and not (origin.left_out.takes_back or rules.takes_back)):
        return
    for name in _names(origin, parts):
        inner = origin.tree.status((*parts, name))
        if inner is not None:
            yield from _walk(origin, (*parts, name), inner, (*names, name), unwanted)


def matching(origin: Origin, word: str, place: Place) -> list[str]:
    """Return the paths that a word names, sorted: itself, or what its stars match, name by name."""
    parts = [part for part in posixpath.normpath(word).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise place.failed(
            f"{word} is outside of {origin.shown}", word, "copy what you need into the context"
        )
    paths = [""]
    rootfs = over(origin.tree, origin.shown)
    for part in parts:
        if part == "**":
            paths = [deep for path in paths for deep in (path, *_directories(rootfs, path))]
            continue
        if not any(sign in part for sign in GLOB):
            paths = [f"{path}/{part}" for path in paths]
            continue
        pattern = ignore.of_patterns([f"\\{part}" if part.startswith("!") else part])
        paths = [
            f"{path}/{name}" for path in paths for name in rootfs.names(path or "/") if pattern.matches(name)
        ]
    return [path or "/" for path in paths]


def _kept(word: str, path: str, *, parents: bool) -> str:
    """Return the name of a source below its destination: its last, or with --parents all after ``/./``."""
    if not parents:
        return posixpath.basename(path)
    pivot = word.partition("/./")[0] if "/./" in word else ""
    depth = len([part for part in pivot.split("/") if part not in ("", ".")])
    return "/".join([part for part in path.split("/") if part][depth:])


def _exists(origin: Origin, word: str) -> bool:
    return over(origin.tree, origin.shown).locate(f"/{word}") is not None


def _is_left_out(origin: Origin, path: str, status: os.stat_result) -> bool:
    """Say whether a path does not count. A directory does if something below it may."""
    path = path.strip("/")
    if not path or not origin.left_out.matches(path):
        return False
    return not (stat.S_ISDIR(status.st_mode) and origin.left_out.takes_back)


def _names(origin: Origin, parts: Parts) -> list[str]:
    """Return the sorted names in a directory.

    Raises:
        BuildError: it can't be read.

    """
    try:
        return sorted(origin.tree.names(parts))
    except OSError as error:
        raise _unreadable(parts, origin, error) from error


def _directories(rootfs: Rootfs, path: str) -> Iterator[str]:
    """Give the directories below a path, at any depth, links not followed."""
    for name in rootfs.names(path or "/"):
        below = f"{path}/{name}"
        if rootfs.is_directory(below) and not rootfs.link(below):
            yield below
            yield from _directories(rootfs, below)


def _digest_file(row: Entry, known: Path | None) -> bytes:
    """Return the digest of a file's content."""
    try:
        with row.open() as file:
            before = stamp(os.fstat(file.fileno()))
            record = _record(os.fstat(file.fileno()), known)
            if record is not None and DIGEST.fullmatch(text := read(record).decode(errors="replace")):
                return bytes.fromhex(text)
            total = hashlib.sha256()
            while piece := file.read(READ_SIZE):
                total.update(piece)
            after = stamp(os.fstat(file.fileno()))
    except OSError as error:
        raise _unreadable(row.parts, row.origin, error) from error
    if record is not None and before == after:
        record.parent.mkdir(exist_ok=True)
        new = record.with_name(f"{record.name}.{os.getpid()}")
        new.write_text(total.hexdigest())
        new.rename(record)
    return total.digest()


def _record(status: os.stat_result, known: Path | None) -> Path | None:
    """Return where the digest of a file is, or shall be, remembered; None if nowhere."""
    age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    if known is None or status.st_size < REMEMBERED_LEAST or age < AGE_LEAST:
        return None
    return known / hashlib.sha256(stamp(status).encode()).hexdigest()[:40]


def _unreadable(parts: Parts, origin: Origin, error: OSError) -> BuildError:
    why = os.strerror(error.errno or 0)
    path = "/".join(parts).encode("utf-8", "surrogateescape").decode(errors="replace")
    return BuildError(
        f"build failed: can't read {path or '.'} in {origin.shown}: {why}",
        "make it readable, or leave it out by .dockerignore",
    )


def _parts(path: str) -> Parts:
    return tuple(part for part in path.split("/") if part)
