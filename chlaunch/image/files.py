"""Files by their names, in a directory or in a tar archive: what OCI layouts and docker-archives consist of.

An archive is not extracted: where its members are is noted once, and they are read in place. A compressed
one is decompressed into a temporary file first. No symbolic link of a directory is followed; links of an
archive lead to other members only.
"""

import io
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from chlaunch.errors import ImageError
from chlaunch.image import compress
from chlaunch.image.manifest import Progress
from chlaunch.trees import Directory

# An archive of images has a few hundred members.
MEMBERS_MOST = 100_000
LINKS_MOST = 10

# A header of a tar archive is read whole; that of a long name or of PAX has a few hundred bytes.
HEADER_MOST = 1 << 20

# Of a compressed archive, decompressed.
ARCHIVE_MOST = 1 << 39

PIECE = 1 << 20


class Files(Protocol):
    """Where files can be read by their names, which have no leading slash. Methods raise ImageError."""

    def has(self, name: str) -> bool:
        """Say whether there is such a file."""

    def size(self, name: str) -> int:
        """Return how many bytes it has."""

    def open(self, name: str, start: int = 0) -> BinaryIO:
        """Open it for reading from start on."""


@dataclass(frozen=True)
class DirectoryFiles:
    """The files below a directory. shown: its name, for messages."""

    directory: Directory
    shown: str

    def has(self, name: str) -> bool:
        """Say whether there is such a file; a link is none."""
        return stat.S_ISREG(self.directory.mode(tuple(name.split("/"))) or 0)

    def size(self, name: str) -> int:
        """Return how many bytes it has."""
        status = self.directory.status(tuple(name.split("/")))
        if status is None or not stat.S_ISREG(status.st_mode):
            raise _absent(self.shown, name)
        return status.st_size

    def open(self, name: str, start: int = 0) -> BinaryIO:
        """Open it for reading from start on."""
        if not self.has(name):
            raise _absent(self.shown, name)
        try:
            file = self.directory.open(tuple(name.split("/")))
            file.seek(start)
        except OSError as error:
            raise ImageError(
                f"can't read {name} of {self.shown}: {error.strerror}", "is it yours?"
            ) from error
        return file


@dataclass(frozen=True)
class ArchiveFiles:
    """The members of an uncompressed tar archive.

    places: where each begins, and its length. links: which member each leads to.
    """

    descriptor: int
    shown: str
    places: Mapping[str, tuple[int, int]]
    links: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Say whether there is such a member, links followed."""
        return self._resolve(name) is not None

    def size(self, name: str) -> int:
        """Return how many bytes it has."""
        return self._place(name)[1]

    def open(self, name: str, start: int = 0) -> BinaryIO:
        """Open it for reading from start on. Several may be read at once."""
        at, length = self._place(name)
        return io.BufferedReader(_Part(self.descriptor, at + min(start, length), at + length), PIECE)

    def _place(self, name: str) -> tuple[int, int]:
        found = self._resolve(name)
        if found is None:
            raise _absent(self.shown, name)
        return self.places[found]

    def _resolve(self, name: str) -> str | None:
        """Return the member that a name leads to; None if to none."""
        for _ in range(LINKS_MOST):
            if name in self.places:
                return name
            if name not in self.links:
                return None
            name = self.links[name]
        return None


class _Part(io.RawIOBase):
    """A part of an open file, read without moving its position."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        """Begin at start."""
        super().__init__()
        self._descriptor, self._at, self._end = descriptor, start, end

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401  of Python 3.11 there is no name for it
        """Read the next bytes; 0 at the end, also where the file ends before the part does."""
        room = memoryview(buffer)[: self._end - self._at]
        count = os.preadv(self._descriptor, [room], self._at) if room else 0
        self._at += count
        return count


@dataclass(frozen=True)
class _Headers:
    """What tarfile reads headers from: it takes their word for how much to read at once."""

    file: BinaryIO

    def read(self, size: int) -> bytes:
        """Read as much as a header may have."""
        if not 0 <= size <= HEADER_MOST:
            raise tarfile.ReadError(f"a header of more than {HEADER_MOST >> 20} MiB")
        return self.file.read(size)

    def seek(self, position: int) -> int:
        """Go there."""
        return self.file.seek(position)

    def tell(self) -> int:
        """Return where we are."""
        return self.file.tell()


@contextmanager
def open_files(path: Path, temporary: Path, progress: Progress = lambda _: None) -> Iterator[Files]:
    """Give the files of a directory, or of a tar archive, also a compressed one.

    temporary: a directory that gets a decompressed copy. progress: told the bytes that were read for it.

    Raises:
        ImageError: it is neither, or damaged.

    """
    if path.is_dir():
        yield DirectoryFiles(Directory(str(path)), str(path))
        return
    with open_regular(path) as file, _plain(file, temporary, str(path), progress) as plain:
        yield read_archive(plain, str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; nothing else is, for to open a FIFO is to wait.

    Raises:
        ImageError: there is none, or it can't be read.

    """
    hint = "give the path of an image that you may read"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"can't open image: {path}: {error.strerror}", hint) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError(f"not a file: {path}", hint)
    return os.fdopen(descriptor, "rb")


def read_archive(file: BinaryIO, shown: str) -> ArchiveFiles:
    """Return the members of an uncompressed tar archive, which must stay open.

    Raises:
        ImageError: it is none, is cut off, or has more members than any archive of images.

    """
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
            places, links = _index(archive, os.fstat(file.fileno()).st_size)
    except Exception as error:  # tarfile raises many kinds, and a bug of it is no bug of ours
        raise ImageError(f"not an archive of images: {shown}: {error}", "is it whole?") from error
    return ArchiveFiles(file.fileno(), shown, places, links)


def _index(archive: tarfile.TarFile, size: int) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return where the members of an archive of that size are, and which lead to others."""
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    for number, member in enumerate(iter(archive.next, None)):
        archive.members.clear()  # type: ignore[attr-defined]  # it has no public way to forget
        name = _normal(member.name)
        if number >= MEMBERS_MOST or member.size < 0 or member.offset_data + member.size > size:
            raise tarfile.ReadError("it is cut off, or has too many members")
        for known in (places, links):
            known.pop(name, None)  # of two with one name the later holds
        if member.issym():
            links[name] = _normal(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            links[name] = _normal(member.linkname)
        elif member.isreg() and not member.issparse():
            places[name] = (member.offset_data, member.size)
    return places, links


@contextmanager
def _plain(file: BinaryIO, temporary: Path, shown: str, progress: Progress) -> Iterator[BinaryIO]:
    """Give the file itself, or a decompressed copy that vanishes with its last user."""
    start = file.read(512)
    file.seek(0)
    if start[257:262] == b"ustar":
        yield file
        return
    with tempfile.TemporaryFile(dir=temporary) as copy:
        stream = compress.open_decompressed(file, shown)
        done = read = 0
        while piece := stream.read(PIECE):
            done += len(piece)
            if done > ARCHIVE_MOST:
                raise ImageError(
                    f"decompressed, it has more than {ARCHIVE_MOST >> 30} GiB: {shown}", "is it an image?"
                )
            copy.write(piece)
            progress(file.tell() - read)
            read = file.tell()
        copy.flush()
        copy.seek(0)
        yield copy


def _normal(name: str) -> str:
    """Return a member's name as it is asked for; one that leads outside becomes one that nobody asks for."""
    return posixpath.normpath(name).lstrip("/")


def _absent(shown: str, name: str) -> ImageError:
    return ImageError(f"{shown}: there is no {name}", "is the image whole?")
