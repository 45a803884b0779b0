"""Write what OCI layouts and docker-archives consist of: files in a directory, or members of an archive."""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from chlaunch.image.manifest import Progress

PIECE = 1 << 20

# What is called after each piece that was written.
Told = Callable[[], None]


class Writer(Protocol):
    """Where files can be put."""

    def size(self, name: str) -> int | None:
        """Return the size of a file that is there; None if it is not."""

    def put(self, stream: BinaryIO, name: Callable[[str], str], told: Told = lambda: None) -> str:
        """Put what stream has under the name that its digest gets; return the digest."""

    def finish(self) -> None:
        """Write what comes last."""


@dataclass(frozen=True)
class DirectoryWriter:
    """A directory. Each file is there whole, or not at all."""

    path: Path

    def size(self, name: str) -> int | None:
        """Return the size of a file that is there; None if it is not."""
        try:
            return (self.path / name).lstat().st_size
        except OSError:
            return None

    def put(self, stream: BinaryIO, name: Callable[[str], str], told: Told = lambda: None) -> str:
        """Put what stream has under the name that its digest gets; return the digest."""
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = _copy(stream, file, told)
                os.fchmod(descriptor, 0o644)
            place = self.path / name(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            Path(temporary).rename(place)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return digest

    def finish(self) -> None:
        """Do nothing: there is no end mark."""


@dataclass(frozen=True)
class ArchiveWriter:
    """A tar archive, written to a file that can be sought in; the same content gives the same archive."""

    file: BinaryIO
    sizes: dict[str, int] = field(default_factory=dict)

    def size(self, name: str) -> int | None:
        """Return the size of a member that was put; None if it was not."""
        return self.sizes.get(name)

    def put(self, stream: BinaryIO, name: Callable[[str], str], told: Told = lambda: None) -> str:
        """Put what stream has under the name that its digest gets; return the digest.

        Its length is known afterwards only, so that its header is written last.
        """
        start = self.file.tell()
        self.file.seek(start + tarfile.BLOCKSIZE)
        digest = _copy(stream, self.file, told)
        member = tarfile.TarInfo(name(digest))
        if member.name in self.sizes:
            self.file.seek(start)
            self.file.truncate()
            return digest
        end = self.file.tell()
        member.size = self.sizes[member.name] = end - start - tarfile.BLOCKSIZE
        self.file.write(bytes(-end % tarfile.BLOCKSIZE))
        self.file.seek(start)
        self.file.write(member.tobuf(tarfile.GNU_FORMAT))
        self.file.seek(0, os.SEEK_END)
        return digest

    def finish(self) -> None:
        """Write the two empty blocks that end an archive."""
        self.file.write(bytes(2 * tarfile.BLOCKSIZE))


def counting(file: BinaryIO, progress: Progress) -> Told:
    """Return what tells progress how much was read of a file meanwhile."""
    before = 0

    def told() -> None:
        nonlocal before
        now = file.tell()
        progress(now - before)
        before = now

    return told


def _copy(stream: BinaryIO, file: BinaryIO, told: Told) -> str:
    """Copy all of stream; return its digest."""
    digest = hashlib.sha256()
    while piece := stream.read(PIECE):
        digest.update(piece)
        file.write(piece)
        told()
    return f"sha256:{digest.hexdigest()}"
