"""Trees of files that images are made of: a directory of this host, and a stack of them. No link is followed.

A third kind is in squashfs.py; rootfs.py follows links in all of them.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import filter as matching
from pathlib import Path
from typing import BinaryIO, Protocol

from chlaunch.errors import ImageError

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

# Of images in storage, as runtime/store.c has them.
LAYERS_MOST = 500
LAYER = re.compile(r"[0-9a-z]{1,16}")
LAYERS_TEXT_MOST = LAYERS_MOST * 17
HINT = "the storage directory is damaged or of another version: pull or build the image again"

# Paths of a stack, with the layers that show them.
REMEMBERED = 4096

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
class Directory:
    """A tree below a directory of this host. It is walked name by name, so that no link leads out of it."""

    top: str

    def mode(self, parts: Parts) -> int | None:
        """Return the st_mode of what is there; None if nothing is, or it can't be seen."""
        status = self.status(parts)
        return None if status is None else status.st_mode

    def target(self, parts: Parts) -> str:
        """Return what the link there says."""
        with self._above(parts) as (descriptor, name):
            return os.readlink(name, dir_fd=descriptor)

    def names(self, parts: Parts) -> list[str]:
        """Return the names in the directory there."""
        with self._opened(parts) as descriptor:
            return os.listdir(descriptor)  # noqa: PTH208  of a descriptor

    def open(self, parts: Parts) -> BinaryIO:
        """Open the regular file there for reading and seeking."""
        with self._above(parts) as (descriptor, name):
            # What was a file a moment ago may be a FIFO now, whose opening would wait for a writer.
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.fdopen(opened, "rb")

    def identity(self, find: Callable[[str], Parts | None]) -> str:
        """Return a text that changes when something of WATCHED does."""
        above, pattern = WATCHED_MULTIARCH
        known = find(above)
        names = [] if known is None else sorted(matching(self.names(known), pattern))
        found = [find(path) for path in (*WATCHED, *(f"{above}/{name}" for name in names))]
        stats = [self.status(parts) for parts in found if parts is not None]
        return "\n".join(stamp(status) for status in stats if status is not None)

    def status(self, parts: Parts) -> os.stat_result | None:
        """Return what stat(2) says of what is there; None if nothing is, or it can't be seen."""
        try:
            with self._above(parts) as (descriptor, name):
                return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except (OSError, ValueError):  # ValueError: a NUL, or what can't be encoded, is in no name
            return None

    def whiteouts(self, parts: Parts) -> set[str]:
        """Return the names in the directory there that say only that there is no such name below."""
        with self._opened(parts) as descriptor, os.scandir(descriptor) as entries:
            others = [
                entry
                for entry in entries
                if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False))
            ]
            return {entry.name for entry in others if is_whiteout(entry.stat(follow_symlinks=False))}

    def is_opaque(self, parts: Parts) -> bool:
        """Say whether the directory there hides what layers below have in it."""
        try:
            with self._opened(parts) as descriptor:
                return os.getxattr(descriptor, "user.overlay.opaque") == b"y"
        except OSError:
            return False

    @contextmanager
    def _opened(self, parts: Parts) -> Iterator[int]:
        """Give a descriptor with which to read the directory there."""
        with self._above(parts) as (above, name):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _above(self, parts: Parts) -> Iterator[tuple[int, str]]:
        """Give a descriptor of the directory that has what is there, and its name in it."""
        descriptor = os.open(self.top, os.O_PATH | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor, parts[-1] if parts else "."
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Stack:
    """Layers, the topmost first, seen as overlayfs shows them (Documentation/filesystems/overlayfs.rst).

    stamp: a text that changes when the image does. Layers don't change: which show a path is remembered.
    """

    stamp: str
    layers: tuple[Directory, ...]
    _known: dict[Parts, tuple[Directory, ...]] = field(default_factory=dict, repr=False, compare=False)

    def mode(self, parts: Parts) -> int | None:
        """Return the st_mode of what is there; None if nothing is, or it can't be seen."""
        showing = self._showing(parts)
        return showing[0].mode(parts) if showing else None

    def status(self, parts: Parts) -> os.stat_result | None:
        """Return what stat(2) says of what is there; None if nothing is, or it can't be seen."""
        showing = self._showing(parts)
        return showing[0].status(parts) if showing else None

    def target(self, parts: Parts) -> str:
        """Return what the link there says."""
        return self._top(parts).target(parts)

    def names(self, parts: Parts) -> list[str]:
        """Return the names in the directory there, of all layers that have it."""
        names: set[str] = set()
        hidden: set[str] = set()
        for layer in self._showing(parts):
            names |= set(layer.names(parts))
            hidden |= layer.whiteouts(parts)
        return [name for name in names if name not in hidden or self._showing((*parts, name))]

    def open(self, parts: Parts) -> BinaryIO:
        """Open the regular file there for reading and seeking."""
        return self._top(parts).open(parts)

    def directories(self, parts: Parts) -> list[str]:
        """Return the directories of this host, the topmost first, that overlayfs shows as the one there."""
        return [os.path.join(layer.top, *parts) for layer in self._showing(parts)]  # noqa: PTH118  as tops are

    def identity(self, _find: Callable[[str], Parts | None]) -> str:
        """Return a text that changes when the image does."""
        return self.stamp

    def _top(self, parts: Parts) -> Directory:
        showing = self._showing(parts)
        if not showing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return showing[0]

    def _showing(self, parts: Parts) -> tuple[Directory, ...]:
        """Return the layers, the topmost first, whose file or directories are seen there."""
        depth = len(parts)
        while depth and parts[:depth] not in self._known:
            depth -= 1
        showing = self._known[parts[:depth]] if depth else self.layers
        for end in range(depth + 1, len(parts) + 1):
            showing = _narrow(showing, parts[:end])
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[parts[:end]] = showing
        return showing


def _narrow(layers: tuple[Directory, ...], parts: Parts) -> tuple[Directory, ...]:
    """Return those of the layers that have the directory above that are seen at parts, too."""
    found: list[Directory] = []
    for layer in layers:
        status = layer.status(parts)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return tuple(found) if found or is_whiteout(status) else (layer,)
        found.append(layer)
        if layer.is_opaque(parts):
            break
    return tuple(found)


def open_stack(storage: str, name: str, shown: str) -> Stack:
    """Return the image in storage whose directory below images/ has that name (runtime/store.c).

    Raises:
        ImageError: its list of layers makes no sense, or a layer is missing.

    """

    def unusable(why: str) -> ImageError:
        return ImageError(f"can't use image in storage: {shown}: {why}", HINT)

    path = Path(storage, "images", name)
    try:
        status = path.lstat()
        descriptor = os.open(path / "layers", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            text = file.read(LAYERS_TEXT_MOST + 1)
    except OSError as error:
        raise unusable(f"layers: {os.strerror(error.errno or 0)}") from error
    if not text.endswith(b"\n") or len(text) > LAYERS_TEXT_MOST or b"\0" in text:
        raise unusable("its list of layers is empty, cut off or too long")
    layers = text[:-1].decode(errors="replace").split("\n")
    for number, layer in enumerate(layers, 1):
        if number > LAYERS_MOST or not LAYER.fullmatch(layer):
            raise unusable(f"can't use layer {number}: {layer[:40]}")
        if not Path(storage, "l", layer).is_dir():
            raise unusable(f"layer l/{layer}: {os.strerror(errno.ENOENT)}")
    tops = tuple(Directory(str(Path(storage, "l", layer))) for layer in reversed(layers))
    return Stack(f"{stamp(status)} {' '.join(layers)}", tops)


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether a file in a layer only says that layers below have no such name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def stamp(status: os.stat_result) -> str:
    """Return what changes when the file does."""
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
