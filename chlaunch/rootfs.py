"""Which image a word means, and a read-only view of what it holds, without entering it.

Only directories can be looked into so far. Image files are told by their first bytes, images in storage by
their names; nothing is found in them.

Every path is one *inside* the image, and symbolic links are followed as the kernel would follow them there:
an absolute link starts again at the image's root (``/usr/bin/mpirun -> /etc/alternatives/mpirun``), and
``..`` ends at the root.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import filter as matching
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from chlaunch.errors import ImageError

# The kernel gives up with ELOOP after as many (MAXSYMLINKS, path_resolution(7)).
LINKS_MAX = 40

# Of a file that is read as text. Those that matter have a few KiB; an image may hold anything.
TEXT_MAX = 1 << 20

# Directories that ch-run can't do without: it binds the host's there.
NEEDED = ("/dev", "/proc", "/sys")

# Image files: where their magic number is, the number, and what they are (runtime/image_file.c).
MAGICS = ((0, b"hsqs", "SquashFS"), (32, b"SIF_MAGIC", "SIF"), (1024, b"\xe2\xe1\xf5\xe0", "EROFS"))
MAGIC_END = 1028

# What changes when software comes into a directory or goes: package managers' lists, and the directories that
# they and people put it into. Below /usr/lib also Debian's multiarch directories.
WATCHED = (
    "/",
    "/usr/lib",
    "/usr/lib64",
    "/usr/bin",
    "/usr/local/lib",
    "/etc",
    "/opt",
    "/ch",
    "/var/lib/dpkg/status",
    "/var/lib/rpm",
    "/lib/apk/db/installed",
)
WATCHED_MULTIARCH = ("/usr/lib", "*-linux-*")

# A path without links and "..": its names from the image's root down.
Parts = tuple[str, ...]


class Tree(Protocol):
    """Where an image's files come from. No link is followed here.

    Methods other than mode may raise OSError, and all ImageError.
    """

    def mode(self, parts: Parts) -> int | None:
        """Return the st_mode of what is there; None if nothing is, or it can't be seen."""

    def target(self, parts: Parts) -> str:
        """Return what the link there says."""

    def names(self, parts: Parts) -> list[str]:
        """Return the names in the directory there, in any order."""

    def open(self, parts: Parts) -> BinaryIO:
        """Open the regular file there for reading and seeking."""

    def identity(self, find: Callable[[str], Parts | None]) -> str:
        """Return a text that changes when the tree does. find: where a path leads, links followed."""


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
        """Return where its files come from."""
        return _Directory(self.path)

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
                _stamp(Path(self.path).stat())
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
        links = 0
        while todo:
            part = todo.pop()
            if not stat.S_ISDIR(trail[-1][1]):
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

    def _read_link(self, parts: Parts) -> str:
        """Return what the link there says; empty if it has gone meanwhile."""
        try:
            return self._tree.target(parts)
        except OSError:
            return ""


@dataclass(frozen=True)
class _Directory:
    """A tree below a directory of this host. It is walked name by name, so that no link leads out of it."""

    top: str

    def mode(self, parts: Parts) -> int | None:
        try:
            return self._status(parts).st_mode
        except (OSError, ValueError):  # ValueError: a NUL, or what can't be encoded, is in no name
            return None

    def target(self, parts: Parts) -> str:
        with self._above(parts) as (descriptor, name):
            return os.readlink(name, dir_fd=descriptor)

    def names(self, parts: Parts) -> list[str]:
        with self._above(parts) as (descriptor, name):
            opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        try:
            return os.listdir(opened)  # noqa: PTH208  of a descriptor
        finally:
            os.close(opened)

    def open(self, parts: Parts) -> BinaryIO:
        with self._above(parts) as (descriptor, name):
            # What was a file a moment ago may be a FIFO now, whose opening would wait for a writer.
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.fdopen(opened, "rb")

    def identity(self, find: Callable[[str], Parts | None]) -> str:
        above, pattern = WATCHED_MULTIARCH
        known = find(above)
        names = [] if known is None else sorted(matching(self.names(known), pattern))
        found = [find(path) for path in (*WATCHED, *(f"{above}/{name}" for name in names))]
        return "\n".join(_stamp(self._status(parts)) for parts in found if parts is not None)

    def _status(self, parts: Parts) -> os.stat_result:
        with self._above(parts) as (descriptor, name):
            return os.stat(name, dir_fd=descriptor, follow_symlinks=False)

    @contextmanager
    def _above(self, parts: Parts) -> Iterator[tuple[int, str]]:
        """Give a descriptor of the directory that has parts, and its name there."""
        descriptor = os.open(self.top, os.O_PATH | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor, parts[-1] if parts else "."
        finally:
            os.close(descriptor)


def _stamp(status: os.stat_result) -> str:
    """Return what changes when the file does."""
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


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
        return Rootfs(word, storage, "an image in storage")
    try:
        mode = os.stat(absolute).st_mode  # noqa: PTH116  its errno words the message
        kind = None if stat.S_ISDIR(mode) else _kind_of_file(absolute)
    except OSError as error:
        raise _unopened(word, storage, error) from error
    if kind:
        return Rootfs(absolute, unseen=f"a {kind} file")
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
    name = word.replace("/", "%").replace(":", "+")
    try:
        return stat.S_ISDIR(Path(storage, "images", name).lstat().st_mode)
    except OSError:
        return False


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


def _unopened(word: str, storage: str, error: OSError) -> ImageError:
    """Return the failure for a path at which no image can be opened."""
    why = os.strerror(error.errno or 0)
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return ImageError(
            f"can't open image: {word}: {why}",
            "the image must be readable, and every directory above it searchable, by you",
        )
    if word[0] in "./":
        return ImageError(f"can't find image: {word}: {why}", "the image is the last word before `--`")
    return ImageError(
        f"can't find image: {word} (nor in storage: {storage}): {why}",
        "the image is the last word before `--`: a path, or a name in storage (see --ch-storage)",
    )
