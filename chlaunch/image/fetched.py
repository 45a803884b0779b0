"""What launches have fetched into a cache (published.py): how much it is, and how it leaves.

Only what has the names of such files, and belongs to who asks, is looked at: the directory may hold others.
"""

import os
import re
import stat
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import StorageError
from chlaunch.image import locks
from chlaunch.image.locks import Patience, Say
from chlaunch.image.manifest import host_platform
from chlaunch.image.published import DAY, lock_of

# An image's file; its lock, ".NAME.lock"; what is on its way to be one, ".NAME.new-X" or "..NAME.new-X.Y".
NAME = re.compile(r"(?P<dots>\.{0,2})(?P<file>[0-9a-f]{64}-[A-Za-z0-9_]+\.sqfs)(?P<end>\.lock|\.new-.+)?")


@dataclass(frozen=True)
class Kept:
    """A file in a cache. file: the image's. size: in bytes. used: when last, to a day; seconds since 1970."""

    path: Path
    file: str
    size: int
    used: float

    @property
    def is_image(self) -> bool:
        """Say whether it is a whole image."""
        return self.path.name == self.file

    @property
    def is_lock(self) -> bool:
        """Say whether it is an image's lock."""
        return self.path == lock_of(self.path.parent, self.file)


def file_name(digest: str) -> str:
    """Return what an image for this machine is called in a cache."""
    return f"{digest.partition(':')[2]}-{host_platform().architecture}.sqfs"


def kept(directory: Path) -> list[Kept]:
    """Return what there is of this user's, locks last; nothing where there is no such directory.

    Raises:
        StorageError: the directory can't be read.

    """
    found = []
    try:
        for entry in os.scandir(directory):
            match = NAME.fullmatch(entry.name)
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if match and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    used = max(status.st_atime, status.st_mtime)
                    found.append(Kept(Path(entry.path), match["file"], status.st_size, used))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed("read", directory, error) from error
    return sorted(found, key=lambda row: (row.is_lock, row.path))


def thin(directory: Path, days: int, say: Say) -> int:
    """Remove images that were not used for so many days; return how many bytes that was.

    What killed fetches left goes too, and locks of images that are gone; after a day, whatever days is.

    Raises:
        StorageError: the directory can't be read, or a file not be removed.

    """
    freed = 0
    for row in kept(directory):
        if time.time() - row.used < (days if row.is_image else 1) * DAY:
            continue
        try:
            with ExitStack() as stack:
                if row.is_image or _is_idle(row, stack, say):
                    row.path.unlink(missing_ok=True)
                    freed += row.size
        except OSError as error:
            raise _failed("remove", row.path, error) from error
    return freed


def _is_idle(row: Kept, stack: ExitStack, say: Say) -> bool:
    """Say whether nobody needs a file that is no image; none will while the stack lasts."""
    directory = row.path.parent
    if row.is_lock and (directory / row.file).exists():
        return False
    lock = locks.held(lock_of(directory, row.file), f"removing {row.path.name}", say, patience=Patience(0))
    try:
        return stack.enter_context(lock)
    except locks.NoLocksError:
        return True


def _failed(what: str, path: Path, error: OSError) -> StorageError:
    """Return the failure for an error of the file system."""
    return StorageError(f"can't {what} image cache: {path}: {os.strerror(error.errno or 0)}")
