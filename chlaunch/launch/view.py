"""What a program in a container sees: the image, and some of the host."""

from dataclasses import dataclass
from typing import BinaryIO

from chlaunch.rootfs import LINKS_MAX, Rootfs

NAMES_MAX = 1000


@dataclass(frozen=True)
class View:
    """What a program in a container sees: the image, but at each path in shown what the host has at another.

    Symbolic links may lead from one to the other: that of a Python environment in the home to the image's
    Python.
    """

    image: Rootfs
    shown: tuple[tuple[str, str], ...] = ()

    def there(self, path: str) -> tuple[Rootfs, str]:
        """Return where the files at an absolute path are; links are not followed."""
        for target, source in sorted(self.shown, reverse=True):
            if path == target or path.startswith(f"{target.rstrip('/')}/"):
                return Rootfs("/"), f"{source.rstrip('/')}/{path[len(target.rstrip('/')) :].lstrip('/')}"
        return self.image, path

    def locate(self, path: str) -> str | None:
        """Return path with its links followed; None if there is nothing."""
        if not self.shown:
            return self.image.locate(path)
        todo = [part for part in path.split("/") if part][::-1]
        done: list[str] = []
        links = names = 0
        while todo:
            part = todo.pop()
            names += 1
            if part == "..":
                del done[-1:]
            if part in (".", ".."):
                continue
            here = "/".join(["", *done, part])
            rootfs, on = self.there(here)
            target = rootfs.link(on)
            if not target:
                done.append(part)
                continue
            links += 1
            if links > LINKS_MAX or names > NAMES_MAX:
                return None
            if target.startswith("/"):
                done = []
            todo.extend(part for part in reversed(target.split("/")) if part)
        found = "/".join(["", *done]) or "/"
        rootfs, on = self.there(found)
        return found if rootfs.mode(on) is not None else None

    def open(self, path: str) -> BinaryIO | None:
        """Open the file at path; None if there is none that can be read."""
        rootfs, on = self._at(path)
        return rootfs.open(on)

    def is_file(self, path: str) -> bool:
        """Say whether there is a regular file at path."""
        rootfs, on = self._at(path)
        return rootfs.is_file(on)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in the directory at path."""
        rootfs, on = self._at(path)
        return rootfs.names(on)

    def text(self, path: str) -> str:
        """Return the text of the file at path, empty if there is none."""
        rootfs, on = self._at(path)
        return rootfs.text(on)

    def _at(self, path: str) -> tuple[Rootfs, str]:
        """Return where the files at path are, links followed as far as they lead anywhere."""
        return self.there((self.locate(path) or path) if self.shown else path)
