"""A tree in overlay form made into a layer, the same bytes for the same tree.

Rules: OCI Image Layer Filesystem Changeset 1.1; pax, POSIX.1-2017, as the standard library writes it.
"""

import errno
import hashlib
import os
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO

from chlaunch.errors import ImageError
from chlaunch.image.inside import FLAGS, Names
from chlaunch.image.members import (
    OPAQUE,
    OPAQUE_ATTRIBUTE,
    SECOND,
    WHITEOUT,
    XATTR,
    XATTR_KEPT,
    XATTR_OVERLAY,
    decoded,
    printable,
)
from chlaunch.trees import is_whiteout

MODE = 0o1777
PIECE = 1 << 20

FULL = (errno.ENOSPC, errno.EDQUOT)


def pack(directory: Path, stream: BinaryIO) -> str:
    """Write a tree in overlay form as a layer, uncompressed, and return its digest, "sha256:…", the diff_id.

    Members are sorted; they belong to root, and have no set-id bits, which unpacked layers don't have either.
    The root directory has no member. Sockets and devices are left out.

    Raises:
        ImageError: a file can't be read, changes meanwhile, or its name would mean something else in a layer;
            the stream can't be written to.

    """
    archive = _Archive(stream)
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _add_entries(archive, top, ())
        finally:
            os.close(top)
        return archive.finish()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = "make room there" if error.errno in FULL else ""
        shown = printable(decoded(archive.here))
        raise ImageError(f"can't make a layer of {directory}, at {shown or '.'}: {why}", hint) from error


class _Archive:
    """The bytes of a layer on their way. here: what is added now. first: names of files with several."""

    def __init__(self, stream: BinaryIO) -> None:
        self.here: Names = ()
        self.first: dict[tuple[int, int], str] = {}
        self._stream = stream
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, content: bytes) -> None:
        self._digest.update(content)
        self._stream.write(content)
        self._size += len(content)

    def pad(self, multiple: int) -> None:
        self.write(bytes(-self._size % multiple))

    def add(self, member: tarfile.TarInfo) -> None:
        self.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def finish(self) -> str:
        self.write(bytes(2 * tarfile.BLOCKSIZE))
        self.pad(tarfile.RECORDSIZE)
        return f"sha256:{self._digest.hexdigest()}"


def _add_entries(archive: _Archive, directory: int, names: Names) -> None:
    """Add what is in a directory."""
    if _is_opaque(directory):
        archive.add(_mark((*names, OPAQUE)))
    for name in sorted(os.fsencode(entry) for entry in os.listdir(directory)):
        archive.here = (*names, name)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if is_whiteout(status):
            archive.add(_mark((*names, WHITEOUT + name)))
        elif name.startswith(WHITEOUT):
            raise ImageError(
                f"can't make a layer with {printable(decoded(archive.here))}: .wh. marks what has gone",
                "rename it",
            )
        else:
            _add(archive, directory, archive.here, status)


def _add(archive: _Archive, above: int, names: Names, status: os.stat_result) -> None:
    """Add one file, or a directory with all that is in it."""
    member = _member(names, status)
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        _add_directory(archive, above, member, names)
        return
    if identity in archive.first:
        member.type, member.linkname = tarfile.LNKTYPE, archive.first[identity]
        archive.add(member)
        return
    if status.st_nlink > 1:
        archive.first[identity] = member.name
    if stat.S_ISREG(status.st_mode):
        _add_file(archive, above, member, status.st_size)
    elif stat.S_ISLNK(status.st_mode):
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink(names[-1], dir_fd=above).decode("utf-8", "surrogateescape")
        archive.add(member)
    elif stat.S_ISFIFO(status.st_mode):
        member.type = tarfile.FIFOTYPE
        archive.add(member)


def _add_directory(archive: _Archive, above: int, member: tarfile.TarInfo, names: Names) -> None:
    directory = os.open(names[-1], FLAGS, dir_fd=above)
    try:
        member.type = tarfile.DIRTYPE
        member.pax_headers = {**member.pax_headers, **_attributes(directory)}
        archive.add(member)
        _add_entries(archive, directory, names)
    finally:
        os.close(directory)


def _add_file(archive: _Archive, above: int, member: tarfile.TarInfo, size: int) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(archive.here[-1], flags, dir_fd=above)
    try:
        member.size = size
        member.pax_headers = {**member.pax_headers, **_attributes(file)}
        archive.add(member)
        while size:
            piece = os.read(file, min(size, PIECE))
            if not piece:
                raise OSError(errno.EIO, "it gets shorter")
            archive.write(piece)
            size -= len(piece)
        archive.pad(tarfile.BLOCKSIZE)
    finally:
        os.close(file)


def _member(names: Names, status: os.stat_result) -> tarfile.TarInfo:
    """Return a member without a type."""
    member = tarfile.TarInfo(decoded(names))
    member.mode = status.st_mode & MODE
    member.mtime = status.st_mtime_ns // SECOND
    if status.st_mtime_ns % SECOND:
        seconds, fraction = divmod(abs(status.st_mtime_ns), SECOND)
        sign = "-" if status.st_mtime_ns < 0 else ""
        member.pax_headers = {"mtime": f"{sign}{seconds}.{fraction:09}".rstrip("0")}
    return member


def _mark(names: Names) -> tarfile.TarInfo:
    """Return what says something of layers below; of no time, for nobody sees one."""
    member = tarfile.TarInfo(decoded(names))
    member.mode = 0
    return member


def _attributes(file: int) -> dict[str, str]:
    """Return headers for the attributes that `unpack` keeps, but for names that no header can have."""
    kept, overlay = os.fsdecode(XATTR_KEPT), os.fsdecode(XATTR_OVERLAY)
    try:
        names = sorted(os.listxattr(file))
    except OSError:  # the file system has none
        return {}
    return {
        XATTR + name: os.getxattr(file, name).decode("utf-8", "surrogateescape")
        for name in names
        if name.startswith(kept) and not name.startswith(overlay) and "=" not in name and name.isprintable()
    }


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False
