"""Directories of a tree that is being made, by descriptors. Links in it lead where they would in the image.

As with RESOLVE_IN_ROOT of openat2(2), which Python lacks: nothing leads out, and an absolute link begins at
the top. The tree is ours alone while it is made, so nothing in it changes between two calls.
"""

import errno
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

# A path's names from the tree's top down.
Names = tuple[bytes, ...]

# MAXSYMLINKS, path_resolution(7).
LINKS_MOST = 40

# Directories in each other. Linux has no such limit, but programs run out of descriptors or stack.
DEPTH_MOST = 255

# Directories that are kept open, apart from those on the way to them.
KEPT = 64

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Place:
    """An open directory. names: where it is, without links."""

    descriptor: int
    names: Names


class Inside:
    """The tree below a directory. implied: directories that were made on the way, and the time of who did."""

    def __init__(self, top: str, depth_most: int) -> None:
        """Open it. Raises OSError."""
        self._top = Place(os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ())
        self._known: dict[Names, Place] = {(): self._top}
        self._opened: list[int] = []
        self._depth_most = depth_most
        self._links = 0
        self.implied: dict[Names, int] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        self.forget()
        os.close(self._top.descriptor)

    def forget(self) -> None:
        """Close what is known: something was removed from the tree, or replaced."""
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened.clear()
        self._known = {(): self._top}

    def directory(self, names: Names, time: int | None) -> Place:
        """Return the directory names lead to. It stays open until the next call of this or `forget`.

        time: what is missing is made, with this time, in ns; None: nothing is made.

        Raises:
            OSError: what is there is no directory, nothing is there, or too many links.

        """
        known = self._known.get(names)
        if known:
            return known
        if len(self._opened) > KEPT:
            self.forget()
        self._links = 0
        return self._walk(names, time)

    def _walk(self, names: Names, time: int | None) -> Place:
        known = self._known.get(names)
        if known:
            return known
        if len(names) > self._depth_most:
            raise OSError(errno.ENAMETOOLONG, f"more than {self._depth_most} directories deep")
        above = self._walk(names[:-1], time)
        found = self._step(above, names[-1], time)
        self._known[names] = found
        return found

    def _step(self, above: Place, name: bytes, time: int | None) -> Place:
        """Return the directory of that name."""
        if name == b"..":
            return self._walk(above.names[:-1], time)
        names = (*above.names, name)
        if names in self._known:
            return self._known[names]
        try:
            return self._open(above, name)
        except FileNotFoundError:
            if time is None:
                raise
        except NotADirectoryError:
            return self._follow(above, name, time)
        os.mkdir(name, 0o700, dir_fd=above.descriptor)
        os.chmod(name, 0o755, dir_fd=above.descriptor)  # noqa: S103  what others have; whatever the umask
        self.implied[names] = time
        return self._open(above, name)

    def _open(self, above: Place, name: bytes) -> Place:
        descriptor = os.open(name, FLAGS, dir_fd=above.descriptor)
        self._opened.append(descriptor)
        return Place(descriptor, (*above.names, name))

    def _follow(self, above: Place, name: bytes, time: int | None) -> Place:
        """Return the directory that a link leads to."""
        try:
            target = os.readlink(name, dir_fd=above.descriptor)
        except OSError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        self._links += 1
        if self._links > LINKS_MOST:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        start = () if target.startswith(b"/") else above.names
        parts = tuple(part for part in target.split(b"/") if part not in (b"", b"."))
        return self._walk((*start, *parts), time)
