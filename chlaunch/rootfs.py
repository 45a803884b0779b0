"""Which image a word means, and a read-only view of what it holds, without entering it.

Directories, images in storage and SquashFS files are looked into, also within SIF files; in EROFS files
nothing is found. Image files are told by their first bytes, images in storage by their names.

Every path is one *inside* the image, and symbolic links are followed as the kernel would follow them there:
an absolute link starts again at the image's root (``/usr/bin/mpirun -> /etc/alternatives/mpirun``), and
``..`` ends at the root.
"""

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from chlaunch.errors import ImageError
from chlaunch.squashfs import decompress
from chlaunch.squashfs.blocks import Blocks, damaged, read_superblock
from chlaunch.squashfs.tree import Squashfs
from chlaunch.trees import Directory, Parts, Tree, open_stack, stamp

# The kernel gives up with ELOOP after as many (MAXSYMLINKS, path_resolution(7)).
LINKS_MAX = 40

# Of names on the way, links' included. The kernel has no such limit, and no path comes near it; but links in
# a hostile image could make one that takes minutes.
NAMES_MAX = 2048

# Of a file that is read as text. Those that matter have a few KiB; an image may hold anything.
TEXT_MAX = 1 << 20

# Directories that ch-run can't do without: it binds the host's there.
NEEDED = ("/dev", "/proc", "/sys")

# Image files: where their magic number is, the number, and what they are (runtime/image_file.c).
MAGICS = (
    (0, b"hsqs", "a SquashFS file"),
    (32, b"SIF_MAGIC", "a SIF file"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file"),
)
MAGIC_END = 1028
SIF, EROFS = MAGICS[1][2], MAGICS[2][2]

# SIF (sif's pkg/sif, little-endian): where the number of descriptors and their place are; of a descriptor its
# type, whether it is used, where its data is, and of a partition the file system and what it is for.
SIF_TABLE_AT = 88
SIF_TABLE = struct.Struct("<qq")
SIF_DESCRIPTOR = 585
SIF_DESCRIPTORS_MOST = 1024
SIF_ROW = struct.Struct("<iB12xq176xii")
SIF_PARTITION = 0x4004
SIF_SQUASHFS, SIF_ENCRYPTED = 1, 5
SIF_PRIMARY = 2


@dataclass(frozen=True)
class Rootfs:
    """An image. path: absolute, or with storage (a directory) the name that it has there.

    unseen: what kind of image it is that can't be looked into; empty if it can. In one that can't be, nothing
    is found. All methods may raise ImageError, where an image file or storage is damaged, and nothing else.
    """

    path: str
    storage: str | None = None
    unseen: str = ""

    @cached_property
    def _tree(self) -> Tree:
        """Return where its files come from; it is opened when something is asked for first."""
        if self.storage is not None:
            return open_stack(self.storage, _stored_name(self.path), self.path)
        try:
            kind = _kind_of_file(self.path)
        except OSError:
            kind = None
        return Directory(self.path) if kind is None else _open_squashfs(self.path, kind)

    @property
    def sealed(self) -> str:
        """Return what kind of image it is that can't be written to by its nature; empty for a directory."""
        if self.storage is not None:
            return "an image in storage"
        try:
            return _kind_of_file(self.path) or ""
        except OSError:
            return ""

    def locate(self, path: str) -> str | None:
        """Return the absolute path inside the image that path leads to, links followed; None if not there."""
        found = self._follow(path)
        return None if found is None else "/" + "/".join(found[0])

    def mode(self, path: str) -> int | None:
        """Return the st_mode (inode(7)) of what path leads to; None if it is not there."""
        found = self._follow(path)
        return None if found is None else found[1]

    def is_file(self, path: str) -> bool:
        """Say whether path inside the image is a regular file, links followed."""
        return stat.S_ISREG(self.mode(path) or 0)

    def is_directory(self, path: str) -> bool:
        """Say whether path inside the image is a directory, links followed."""
        return stat.S_ISDIR(self.mode(path) or 0)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory of the image; none if it is not one, or unreadable."""
        parts, mode = self._follow(path) or ((), 0)
        try:
            return tuple(sorted(self._tree.names(parts))) if stat.S_ISDIR(mode) else ()
        except OSError:
            return ()

    def text(self, path: str, limit: int = TEXT_MAX) -> str:
        """Return the text of the file at path inside the image; empty if it is not there, or not readable.

        Of a file with more than limit bytes, it is the beginning.
        """
        file = self.open(path)
        if file is None:
            return ""
        try:
            with file:
                return file.read(limit).decode(errors="replace")
        except OSError:
            return ""

    def open(self, path: str) -> BinaryIO | None:
        """Open the regular file at path inside the image, links followed, for reading and seeking.

        None if it is not there, not readable, or of another kind. Reading from it may raise OSError, or
        ImageError where the image is damaged.
        """
        parts, mode = self._follow(path) or ((), 0)
        try:
            return self._tree.open(parts) if stat.S_ISREG(mode) else None
        except OSError:
            return None

    def identity(self) -> str:
        """Return a short text that changes when the image does, for caches; it may be part of a file's name.

        Image files and images in storage are told apart for sure. A directory is so approximately, by what
        WATCHED lists: what changes elsewhere, or within a file, goes unnoticed.
        """
        try:
            text = (
                stamp(Path(self.path).stat())
                if self.unseen
                else self._tree.identity(lambda path: (self._follow(path) or (None,))[0])
            )
        except OSError:
            text = ""
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _follow(self, path: str) -> tuple[Parts, int] | None:
        """Return where path leads, links followed, and the st_mode there; None if to nothing."""
        if self.unseen:
            return None
        todo = path.split("/")[::-1]
        trail = [("", self._tree.mode(()) or 0)]
        links = names = 0
        while todo:
            part = todo.pop()
            names += 1
            if names > NAMES_MAX or not stat.S_ISDIR(trail[-1][1]):
                return None
            if part == "..":
                del trail[max(1, len(trail) - 1) :]
            if part in ("", ".", ".."):
                continue
            here = (*(name for name, _ in trail[1:]), part)
            mode = self._tree.mode(here)
            if mode is None:
                return None
            if not stat.S_ISLNK(mode):
                trail.append((part, mode))
                continue
            links += 1
            target = self._read_link(here)
            if links > LINKS_MAX or not target:
                return None
            if target.startswith("/"):
                del trail[1:]
            todo.extend(reversed(target.split("/")))
        return tuple(name for name, _ in trail[1:]), trail[-1][1]

    def link(self, path: str) -> str:
        """Return what the symbolic link at path says, links above it followed; empty if it is none."""
        above, _, name = path.rstrip("/").rpartition("/")
        found = self._follow(above or "/")
        if found is None or name in ("", ".", ".."):
            return ""
        here = (*found[0], name)
        mode = self._tree.mode(here)
        return self._read_link(here) if mode is not None and stat.S_ISLNK(mode) else ""

    def _read_link(self, parts: Parts) -> str:
        """Return what the link there says; empty if it has gone meanwhile."""
        try:
            return self._tree.target(parts)
        except OSError:
            return ""


def over(tree: Tree, shown: str) -> Rootfs:
    """Return the view of a tree that is no image yet. shown: its name, for messages."""
    rootfs = Rootfs(shown)
    rootfs.__dict__["_tree"] = tree  # in place of what the property would open
    return rootfs


def storage_directory(named: str, environment: Mapping[str, str]) -> str:
    """Return the absolute path of the storage that ch-run would use; named: by an option, or empty."""
    user = next(
        (name for name in (environment.get("USER"), environment.get("LOGNAME")) if name and "/" not in name),
        "user",
    )
    path = named or environment.get("CH_IMAGE_STORAGE") or f"/var/tmp/{user}.ch"  # noqa: S108  where it is
    return os.path.abspath(path)  # noqa: PTH100  normalises without following links, as pathlib does not


def is_image(path: str) -> bool:
    """Say whether there is an image at path, by the look of it: a directory with a /dev, or an image file."""
    try:
        return os.path.isdir(os.path.join(path, "dev")) or _kind_of_file(path) is not None  # noqa: PTH112, PTH118
    except OSError:
        return False


def open_image(word: str, storage: str) -> Rootfs:
    """Return the image that word means: a path if it has a slash, else a name in storage, else a path.

    A name in storage may have a slash too, if there is nothing at that path. Paths are made absolute: ranks
    may start elsewhere.

    Raises:
        ImageError: with the words ch-run has for the same causes.

    """
    absolute = os.path.abspath(word)  # noqa: PTH100  as above
    if not ("/" in word and os.path.exists(absolute)) and _is_stored(word, storage):  # noqa: PTH110
        stored = Rootfs(word, storage)
        stored.mode("/")  # what is wrong with it comes out here
        return stored
    try:
        mode = os.stat(absolute).st_mode  # noqa: PTH116  its errno words the message
        kind = None if stat.S_ISDIR(mode) else _kind_of_file(absolute)
    except OSError as error:
        raise _unopened(word, storage, error) from error
    if kind:
        return Rootfs(absolute, unseen=_unseen(absolute, kind))
    if not stat.S_ISDIR(mode):
        raise ImageError(
            f"unknown image type: {word}",
            "an image is a directory, a SquashFS, SIF or EROFS file, or a name in ch-image's storage",
        )
    image = Rootfs(absolute)
    for needed in NEEDED:
        if not image.is_directory(needed):
            raise ImageError(
                f"image has no {needed}: {word}", "an image is the directory of a whole root file system"
            )
    return image


def _is_stored(word: str, storage: str) -> bool:
    """Say whether storage has an image of that name (runtime/store.c)."""
    if not word or word[0] in "./":
        return False
    try:
        return stat.S_ISDIR(Path(storage, "images", _stored_name(word)).lstat().st_mode)
    except OSError:
        return False


def _stored_name(word: str) -> str:
    """Return an image's name as a file's."""
    return word.replace("/", "%").replace(":", "+")


def _kind_of_file(path: str) -> str | None:
    """Return what the image file at path holds; None if it is no image file.

    Raises:
        OSError: there is nothing, or it can't be read.

    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  nothing but a file may be opened: a FIFO blocks
        return None
    with open(path, "rb") as file:  # noqa: PTH123  as fast as can be
        start = file.read(MAGIC_END)
    return next((kind for at, magic, kind in MAGICS if start[at:].startswith(magic)), None)


def _unseen(path: str, kind: str) -> str:
    """Return what the image file is if it can't be looked into here, else nothing.

    Raises:
        ImageError: it is damaged.

    """
    if kind == EROFS:
        return kind
    with open(path, "rb") as file:  # noqa: PTH123  as above
        start = _sif_partition(file.fileno(), path) if kind == SIF else 0
        why = decompress.lacking(read_superblock(file.fileno(), start, path).compression)
    return f"{kind} {why}" if why else ""


def squashfs_offset(path: str) -> int:
    """Return where in an image file its SquashFS begins.

    Raises:
        ImageError: there is none in it, or the file can't be read.

    """
    try:
        kind = _kind_of_file(path)
        with open(path, "rb") as file:  # noqa: PTH123  as above
            if kind == SIF:
                return _sif_partition(file.fileno(), path)
    except OSError as error:
        raise _unopened(path, "", error) from error
    if kind != MAGICS[0][2]:
        raise ImageError(f"no SquashFS in it: {path}", "give the path of a .sqfs or .sif file")
    return 0


def _open_squashfs(path: str, kind: str) -> Squashfs:
    """Open the SquashFS in an image file.

    Raises:
        ImageError: it is damaged, or can't be read.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _unopened(path, "", error) from error
    try:
        start = _sif_partition(descriptor, path) if kind == SIF else 0
    except ImageError:
        os.close(descriptor)
        raise
    return Squashfs(Blocks(descriptor, start, path))


def _sif_partition(descriptor: int, shown: str) -> int:
    """Return where in an open SIF file the partition with the root file system is (runtime/image_file.c).

    Raises:
        ImageError: there is none, or it is no SquashFS, in the words of ch-run.

    """
    count, at = SIF_TABLE.unpack(
        os.pread(descriptor, SIF_TABLE.size, SIF_TABLE_AT).ljust(SIF_TABLE.size, b"\0")
    )
    if not (0 <= count <= SIF_DESCRIPTORS_MOST and 0 <= at <= os.fstat(descriptor).st_size):
        raise damaged(shown, "its SIF header makes no sense")
    why = "it has no partition with a root file system"
    for number in range(count):
        row = os.pread(descriptor, SIF_DESCRIPTOR, at + number * SIF_DESCRIPTOR)
        if len(row) != SIF_DESCRIPTOR:
            raise damaged(shown, "it ends within its SIF descriptors")
        kind, used, start, system, role = SIF_ROW.unpack_from(row)
        if kind != SIF_PARTITION or not used or role != SIF_PRIMARY:
            continue
        if system == SIF_SQUASHFS and start > 0:
            return int(start)
        encrypted = system == SIF_ENCRYPTED
        why = f"its root file system is {'encrypted' if encrypted else 'no SquashFS'}"
    raise damaged(shown, why)


def _unopened(word: str, storage: str, error: OSError) -> ImageError:
    """Return the failure for a path at which no image can be opened."""
    why = os.strerror(error.errno or 0)
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return ImageError(
            f"can't open image: {word}: {why}",
            "the image must be readable, and every directory above it searchable, by you",
        )
    if word[0] in "./":
        return ImageError(
            f"can't find image: {word}: {why}", "ch-launch takes the last word before `--` for the image"
        )
    return ImageError(
        f"can't find image: {word} (nor in storage: {storage}): {why}",
        "give a path, or a name in storage (see --ch-storage); ch-launch takes the last word before `--`",
    )
