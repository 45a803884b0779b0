"""A read-only view of what an image holds, without entering it. So far: directories.

Every path is one *inside* the image, and symbolic links are followed as the kernel would follow them there:
an absolute link starts again at the image's root (``/usr/bin/mpirun -> /etc/alternatives/mpirun``), and
``..`` ends at the root.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ImageError

# The kernel gives up with ELOOP after as many (MAXSYMLINKS, path_resolution(7)).
LINKS_MAX = 40

# Directories that ch-run can't do without: it binds the host's there.
NEEDED = ("/dev", "/proc", "/sys")


@dataclass(frozen=True)
class Rootfs:
    """An image that is a directory."""

    directory: str

    def locate(self, path: str) -> Path | None:
        """Return where path of the image is on this host, links followed; None if it is not there."""
        todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            here = Path(self.directory, *done, part)
            try:
                mode = here.lstat().st_mode
            except OSError:
                return None
            if not stat.S_ISLNK(mode):
                done.append(part)
                continue
            links += 1
            if links > LINKS_MAX:
                return None
            target = str(here.readlink())
            if target.startswith("/"):
                done = []
            todo.extend(word for word in reversed(target.split("/")) if word not in ("", "."))
        return Path(self.directory, *done)

    def is_file(self, path: str) -> bool:
        """Say whether path inside the image is a regular file, links followed."""
        there = self.locate(path)
        return there is not None and there.is_file()

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory of the image; none if it is not one, or unreadable."""
        there = self.locate(path)
        if there is None:
            return ()
        try:
            return tuple(sorted(os.listdir(there)))  # noqa: PTH208  names are wanted, and there may be thousands
        except OSError:
            return ()

    def text(self, path: str) -> str:
        """Return the text of the file at path inside the image; empty if it is not there, or not readable."""
        there = self.locate(path)
        if there is None:
            return ""
        try:
            return there.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def open_image(path: str) -> Rootfs:
    """Return the image at path, a directory on this host, made absolute: ranks may start elsewhere.

    Raises:
        ImageError: with the words ch-run has for the same causes.

    """
    absolute = os.path.abspath(path)  # noqa: PTH100  normalises without following links, as pathlib does not
    try:
        mode = os.stat(absolute).st_mode  # noqa: PTH116  its errno words the message
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        hint = "the image is the last word before `--`" if missing else ""
        raise ImageError(f"can't find image: {path}: {os.strerror(error.errno or 0)}", hint) from error
    if not stat.S_ISDIR(mode):
        raise ImageError(f"image is not a directory: {path}", "this version runs images that are directories")
    image = Rootfs(absolute)
    for needed in NEEDED:
        there = image.locate(needed)
        if there is None or not there.is_dir():
            raise ImageError(
                f"image has no {needed}: {path}", "an image is the directory of a whole root file system"
            )
    return image
