"""What a program in a container sees: the image, and some of the host."""

from dataclasses import dataclass
from typing import BinaryIO

from chlaunch.rootfs import Rootfs


@dataclass(frozen=True)
class View:
    """What a program in a container sees: the image, but below the paths in shown the host's files."""

    image: Rootfs
    shown: tuple[str, ...] = ()

    def side(self, path: str) -> Rootfs:
        """Return whose files are at an absolute path."""
        below = any(path == top or path.startswith(f"{top.rstrip('/')}/") for top in self.shown)
        return Rootfs("/") if below else self.image

    def open(self, path: str) -> BinaryIO | None:
        """Open the file at path; None if there is none that can be read."""
        return self.side(path).open(path)

    def locate(self, path: str) -> str | None:
        """Return path with its links followed; None if there is nothing."""
        return self.side(path).locate(path)

    def is_file(self, path: str) -> bool:
        """Say whether there is a regular file at path."""
        return self.side(path).is_file(path)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in the directory at path."""
        return self.side(path).names(path)

    def text(self, path: str) -> str:
        """Return the text of the file at path, empty if there is none."""
        return self.side(path).text(path)
