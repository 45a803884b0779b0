"""What a program in a container sees: the image, and some of the host; how much is looked at has an end."""

import os
from dataclasses import dataclass, field
from typing import BinaryIO, Self, cast

from chlaunch.errors import ImageError
from chlaunch.rootfs import LINKS_MAX, Rootfs

NAMES_MAX = 1000

# What a look at one image may cost. Five MPIs in one take 0.3 GB; an image made to waste time would take
# days: a header can say that there are 4,000,000,000 of something.
BYTES_MAX = 4 << 30

# What a read and a look for a path cost, in bytes that could have been read in their time.
READ_BYTES, LOOK_BYTES = 2 << 10, 64 << 10


@dataclass
class Budget:
    """How much has been spent."""

    spent: int = 0

    def spend(self, amount: int) -> None:
        """Spend bytes.

        Raises:
            ImageError: it is too much.

        """
        self.spent += amount
        if self.spent > BYTES_MAX:
            raise ImageError(
                "the image takes too long to look into: it names or holds more than programs do",
                "if you trust it: ch-run enters it without a look",
            )


@dataclass(frozen=True)
class Metered:
    """A file of which every read is paid for: what is needed of a BinaryIO here."""

    file: BinaryIO
    budget: Budget

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self.file.read(size)
        self.budget.spend(READ_BYTES + len(data))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self.file.tell()

    def __enter__(self) -> Self:
        """Return the file, to be closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.file.close()


@dataclass(frozen=True)
class View:
    """What a program in a container sees: the image, but at each path in shown what the host has at another.

    Symbolic links may lead from one to the other: that of a Python environment in the home to the image's
    Python.
    """

    image: Rootfs
    shown: tuple[tuple[str, str], ...] = ()
    budget: Budget = field(default_factory=Budget, compare=False)

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
        file = rootfs.open(on)
        return None if file is None else cast("BinaryIO", Metered(file, self.budget))

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
        self.budget.spend(LOOK_BYTES)
        return self.there((self.locate(path) or path) if self.shown else path)
