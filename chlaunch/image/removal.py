"""Removing trees of ours, whatever is in them: no link is followed, no other file system entered."""

import os
import stat
from pathlib import Path

from chlaunch.errors import StorageError

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# Each level has a descriptor open. What is deeper is first moved to the top.
DEPTH_MOST = 100


def remove_tree(path: Path) -> None:
    """Remove what is there, a directory with all that is in it or anything else; it need not be there.

    Directories that their owner, us, may not write to or search are made so first. What is mounted somewhere
    in it is not entered, and stays.

    Raises:
        StorageError: something can't be removed; the rest of it is gone or not.

    """
    try:
        above = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_at(above, os.fsencode(path.name))
        finally:
            os.close(above)
    except FileNotFoundError:
        return
    except OSError as error:
        where = f": {os.fsdecode(error.filename)}" if error.filename else ""
        raise StorageError(
            f"can't remove {path}{where}: {os.strerror(error.errno or 0)}",
            "see who owns it, and what is mounted in it",
        ) from error


def remove_at(above: int, name: bytes) -> None:
    """Remove what has that name in the directory that is open as above. Raises OSError."""
    status = os.stat(name, dir_fd=above, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=above)
        return
    top = _open(above, name)
    try:
        _empty(top, top, _mount(top), 0)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=above)


def _empty(directory: int, top: int, mount: bytes, depth: int) -> None:
    """Remove what is in a directory. top: of the tree. mount: what it is on."""
    while names := _names(directory):
        for name, is_directory in names:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
            elif depth == DEPTH_MOST:
                _lift(directory, name, top)
            else:
                _remove_directory(directory, name, top, mount, depth)


def _remove_directory(above: int, name: bytes, top: int, mount: bytes, depth: int) -> None:
    directory = _open(above, name)
    try:
        if _mount(directory) == mount:
            _empty(directory, top, mount, depth + 1)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=above)  # EBUSY where something is mounted


def _lift(directory: int, name: bytes, top: int) -> None:
    """Move a directory to the top, under a name that is not there."""
    os.close(_open(directory, name))  # whose ".." changes, and so must be writable
    number = os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino  # mostly no other has it
    while True:
        lifted = b".deep-%d" % number
        try:
            os.stat(lifted, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            break
        number += 1
    os.rename(name, lifted, src_dir_fd=directory, dst_dir_fd=top)


def _names(directory: int) -> list[tuple[bytes, bool]]:
    """Return names, and whether each is a directory."""
    with os.scandir(directory) as entries:
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


def _open(above: int, name: bytes) -> int:
    """Open a directory, and see that its owner may do everything in it."""
    try:
        directory = os.open(name, FLAGS, dir_fd=above)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101  by its descriptor; fchmod takes none of O_PATH
        finally:
            os.close(handle)
        directory = os.open(name, FLAGS, dir_fd=above)
    if os.fstat(directory).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(directory, 0o700)
    return directory


def _mount(descriptor: int) -> bytes:
    """Return what identifies the mount that an open file is on (proc(5), /proc/pid/fdinfo)."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:  # noqa: PTH123  costs a third less, for each directory
        return next(line for line in file if line.startswith(b"mnt_id:"))
