"""Which image a word means, and a read-only view of what it holds, without entering it.

Only directories can be looked into so far. Image files are told by their first bytes, images in storage by
their names; nothing is found in them.

Every path is one *inside* the image, and symbolic links are followed as the kernel would follow them there:
an absolute link starts again at the image's root (``/usr/bin/mpirun -> /etc/alternatives/mpirun``), and
``..`` ends at the root.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ImageError

# The kernel gives up with ELOOP after as many (MAXSYMLINKS, path_resolution(7)).
LINKS_MAX = 40

# Directories that ch-run can't do without: it binds the host's there.
NEEDED = ("/dev", "/proc", "/sys")

# Image files: where their magic number is, the number, and what they are (runtime/image_file.c).
MAGICS = ((0, b"hsqs", "SquashFS"), (32, b"SIF_MAGIC", "SIF"), (1024, b"\xe2\xe1\xf5\xe0", "EROFS"))
MAGIC_END = 1028


@dataclass(frozen=True)
class Rootfs:
    """An image. path: absolute, or with storage (a directory) the name that it has there.

    unseen: what kind of image it is that can't be looked into; empty if it can.
    """

    path: str
    storage: str | None = None
    unseen: str = ""

    def locate(self, path: str) -> Path | None:
        """Return where path of the image is on this host, links followed; None if it is not seen there."""
        if self.unseen:
            return None
        todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            here = Path(self.path, *done, part)
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
        return Path(self.path, *done)

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
        there = image.locate(needed)
        if there is None or not there.is_dir():
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
