"""What a command has left in the directory that took what it wrote, made into what a layer may have.

Everything stays readable for its owner, set-id bits go (the files are the user's, and others may come to
execute them), and so do the mount points that were made for the command only.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import BuildError
from chlaunch.image.inside import DEPTH_MOST, FLAGS
from chlaunch.rootfs import over
from chlaunch.trees import Stack

KEPT = 0o1777
SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass
class Left:
    """What there is. size: bytes of files. members: but directories. set_id: files that lost such bits."""

    size: int = 0
    members: int = 0
    set_id: int = 0


def settle(upper: Path, source_date: float | None) -> Left:
    """Make what is there fit for a layer, and return what it is. source_date: nothing shall be newer.

    Raises:
        BuildError: directories too deep in each other.
        OSError: it can't be changed.

    """
    left = Left()
    upper.chmod(stat.S_IMODE(upper.lstat().st_mode) & KEPT | stat.S_IRWXU)
    descriptor = os.open(upper, FLAGS)
    try:
        _settle(descriptor, left, None if source_date is None else int(source_date * 1e9), 0)
    finally:
        os.close(descriptor)
    return left


def _settle(directory: int, left: Left, most: int | None, depth: int) -> None:
    """Settle what is in a directory, and then its time."""
    if depth > DEPTH_MOST:
        raise BuildError(
            f"build failed: RUN has left more than {DEPTH_MOST} directories in each other",
            "remove them in the same RUN",
        )
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            os.chmod(name, mode & KEPT | stat.S_IRWXU, dir_fd=directory)
            inner = os.open(name, FLAGS, dir_fd=directory)
            try:
                _settle(inner, left, most, depth + 1)
            finally:
                os.close(inner)
            continue
        left.members += 1
        if stat.S_ISREG(status.st_mode):
            left.size += status.st_size
            left.set_id += bool(mode & SET_ID)
            if mode != (wanted := mode & KEPT | stat.S_IRUSR):
                os.chmod(name, wanted, dir_fd=directory)
        if most is not None and status.st_mtime_ns > most:
            os.utime(name, ns=(most, most), dir_fd=directory, follow_symlinks=False)
    if most is not None and os.fstat(directory).st_mtime_ns > most:
        os.utime(directory, ns=(most, most))


def remove_stubs(upper: Path, below: Stack, targets: Sequence[str], *, whole: bool) -> None:
    """Remove what was made as mount points for a command: what is empty, and was not there before.

    Directories above them that are as below are no change either, unless upper has all files (whole). The
    user's files there stay.
    """
    image = over(below, "image")
    for target in targets:
        path = target.rstrip("/")
        _open(upper, path)
        while path.strip("/"):
            # Where a link leads elsewhere, the mount point was made there, and path is none.
            there = upper / path.lstrip("/")
            if any(part.is_symlink() for part in (there, *there.parents) if part.is_relative_to(upper)):
                break
            with suppress(FileNotFoundError, NotADirectoryError):
                mode = image.mode(path)
                if (whole and mode is not None) or not _is_needless(there, mode):
                    break
                (there.rmdir if there.is_dir() else there.unlink)()
            path = path.rpartition("/")[0]


def _open(upper: Path, path: str) -> None:
    """Let us look into what the command has closed on the way to path, as settle() does with all."""
    directory = upper
    for name in ("", *path.strip("/").split("/")):
        directory /= name
        try:
            mode = directory.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            return
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            directory.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)


def _is_needless(path: Path, below: int | None) -> bool:
    """Say whether what is at path in a layer says nothing. below: the mode of what is there in the image."""
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        return below is None and not status.st_size
    if not stat.S_ISDIR(status.st_mode) or any(path.iterdir()):
        return False
    if below is None:
        return True
    with suppress(OSError):
        if os.getxattr(path, "user.overlay.opaque", follow_symlinks=False) == b"y":
            return False
    return below == status.st_mode
