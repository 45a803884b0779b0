"""Directories for what is needed on the way, outside of storage. What the killed leave, the next removes."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chlaunch.errors import StorageError
from chlaunch.image import locks
from chlaunch.image.removal import remove_tree

PREFIX = "ch-convert."


@contextmanager
def directory(above: Path) -> Iterator[Path]:
    """Give an empty directory below another, such as /var/tmp, that is removed afterwards.

    Raises:
        StorageError: it can't be made.

    """
    _sweep(above)
    try:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    except OSError as error:
        raise StorageError(
            f"can't write to {above}: {os.strerror(error.errno or 0)}", "choose another with --tmp, or TMPDIR"
        ) from error
    try:
        with locks.held(path / "lock", "at work", _nothing):
            (path / "work").mkdir()
            yield path / "work"
    finally:
        remove_tree(path)


def _sweep(above: Path) -> None:
    """Remove what killed commands of this user have left; others may have made what is there, too."""
    for path in above.glob(f"{PREFIX}*"):
        with suppress(OSError, StorageError):
            status = path.lstat()
            mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if mine and (path / "lock").exists() and locks.is_free(path / "lock"):
                remove_tree(path)


def _nothing(_line: str) -> None:
    """Say nothing."""
