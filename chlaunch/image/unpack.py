"""Layers and other tars, from strangers, made into files: nothing leaves the directory, all has an end.

Rules: OCI Image Layer Filesystem Changeset 1.1; tar(5) and pax, POSIX.1-2017; what Charliecloud promises of
mode bits (files and directories stay readable and writable by their owner; set-id bits go; so do owners).
"""

import errno
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from chlaunch.errors import ChlaunchError, ImageError
from chlaunch.image.below import Below
from chlaunch.image.compress import pieces
from chlaunch.image.content import Content
from chlaunch.image.extract import FILES, Extraction
from chlaunch.image.inside import DEPTH_MOST, Inside
from chlaunch.image.members import decoded, parts_of, printable
from chlaunch.trees import Directory, Stack

SIZE = re.compile(r"[0-9]{1,20}")

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Limits:
    """What an archive may need; far more than images do. size: bytes, uncompressed, holes of files included.

    header: bytes of what precedes a member, with its attributes and list of holes. depth: of directories.
    """

    size: int = 512 << 30
    members: int = 20_000_000
    header: int = 1 << 20
    depth: int = DEPTH_MOST


@dataclass(frozen=True)
class Unpacked:
    """A layer that was made into files.

    diff_id: the digest of the uncompressed archive, "sha256:…", and size its bytes. dropped: what was not
    made, by kind, and how often. whiteouts: paths that layers below lose; opaque: directories of which
    nothing below is seen, "" for the root. links_below: hard links whose target is not in this layer, with
    it. implied: directories without a member of their own. Paths are relative; what is not UTF-8 in them are
    surrogates.
    """

    diff_id: str
    size: int
    members: int
    dropped: Mapping[str, int]
    whiteouts: tuple[str, ...]
    opaque: tuple[str, ...]
    links_below: tuple[tuple[str, str], ...]
    implied: tuple[str, ...]


def unpack(stream: BinaryIO, directory: Path, limits: Limits, *, overlay: bool, shown: str) -> Unpacked:
    """Make an archive's members in an empty directory of ours; compressed or not.

    overlay: mark what is hidden of layers below as overlayfs has it; otherwise that is only reported. shown:
    the archive's name, for messages. After a failure, the caller removes the directory. Neither umask nor
    working directory matter, so that several may be unpacked at once.

    Raises:
        ImageError: the archive is damaged, hostile or beyond the limits; the directory can't be written to.
        ChlaunchError: what reading the stream raised.

    """
    try:
        with (
            Inside(str(directory), limits.depth) as inside,
            Content(pieces(stream, shown), shown, limits.size, limits.header) as content,
        ):
            os.fchmod(inside.directory((), None).descriptor, 0o755)
            layer = Extraction(inside, content)
            members = 0
            for members, member in enumerate(_members(content, limits), 1):  # noqa: B007  how many it were
                _make(layer, member, content)
            diff_id, size = content.finish()
            layer.finish(overlay=overlay)
            return _unpacked(layer, diff_id, size, members)
    except OSError as error:
        raise _failed(error, shown, directory) from error


def settle(directory: Path, unpacked: Unpacked, below: Sequence[Path]) -> bool:
    """Give an unpacked layer what it takes from those below; say whether that is anything.

    below: their trees, the highest first, in overlay form. Hard links to files there become copies;
    directories without a member get mode and time of those below.

    Raises:
        ImageError: a hard link leads to nothing; the directory can't be written to.

    """
    try:
        with Inside(str(directory), DEPTH_MOST) as inside:
            tree = Below(inside, Stack("", tuple(Directory(str(path)) for path in below)))
            for path in unpacked.implied:
                tree.fit_directory(path)
            for path, target in unpacked.links_below:
                try:
                    tree.make_link(path, target)
                except ValueError as error:
                    raise ImageError(
                        f"can't make {printable(path)}, a hard link to {printable(target)}: {error}",
                        "the image is damaged: it was meant for other layers below",
                    ) from error
    except OSError as error:
        raise _failed(error, "a layer", directory) from error
    return bool(unpacked.links_below or unpacked.implied)


def _members(content: Content, limits: Limits) -> Iterator[tarfile.TarInfo]:
    """Give the members; the bytes of each are read, or passed over, before the next."""
    content.between()
    try:
        # It only reads forward, for it is always where it expects to be when it looks for the next header.
        archive = tarfile.TarFile(
            fileobj=cast("IO[bytes]", content), encoding="utf-8", errors="surrogateescape"
        )
        for number in count(1):
            member = archive.next()
            if member is None:
                return
            cast("Any", archive).members.clear()  # it would keep them all
            _check_global(archive.pax_headers, content, limits)
            _check(number, member, archive.offset - content.tell(), content, limits)
            yield member
            content.skip_to(archive.offset)
            content.between()
    except ChlaunchError:
        raise
    except Exception as error:  # tarfile has its own, and lets others through: ValueError, RecursionError, …
        raise content.damaged(f"a header in it makes no sense: {error}") from error


def _check(number: int, member: tarfile.TarInfo, room: int, content: Content, limits: Limits) -> None:
    """See that a member is within limits, and its bytes within the archive's room for it."""
    if number > limits.members:
        raise content.too_much(f"{limits.members} members", "--max-members=N")
    if member.type in FILES and not 0 <= room - sum(size for _, size in parts_of(member)) < tarfile.BLOCKSIZE:
        raise ValueError("sizes don't match")
    if member.pax_headers and not SIZE.fullmatch(
        member.pax_headers.get("size", "0")
    ):  # tarfile takes what it can't read for 0
        raise ValueError("a size is no number")


def _check_global(headers: Mapping[str, str], content: Content, limits: Limits) -> None:
    """See that headers for all that follows don't pile up."""
    if sum(len(key) + len(value) for key, value in headers.items()) > limits.header:
        raise content.too_much(f"{limits.header} bytes in global headers")


def _make(layer: Extraction, member: tarfile.TarInfo, content: Content) -> None:
    """Make a member; its name is in the messages."""
    try:
        layer.make(member)
    except OSError as error:
        if error.errno in FULL:
            raise
        why = os.strerror(error.errno) if error.errno else str(error)
        raise content.damaged(f"{printable(member.name)}: {why}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise content.damaged(f"{printable(member.name)}: {error}") from error


def _unpacked(layer: Extraction, diff_id: str, size: int, members: int) -> Unpacked:
    links = sorted(layer.links_below.items())
    return Unpacked(
        diff_id,
        size,
        members,
        dict(layer.dropped),
        tuple(decoded(names) for names in sorted(layer.whiteouts)),
        tuple(decoded(names) for names in sorted(layer.opaque)),
        tuple((decoded(name), decoded(target)) for name, target in links),
        tuple(decoded(names) for names in layer.implied()),
    )


def _failed(error: OSError, shown: str, directory: Path) -> ImageError:
    """Return the error for what the file system refused."""
    why = os.strerror(error.errno) if error.errno else str(error)
    hint = "make room there, or have another storage directory: --storage, $CH_IMAGE_STORAGE"
    return ImageError(f"can't unpack {shown} in {directory}: {why}", hint if error.errno in FULL else "")
