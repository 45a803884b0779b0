"""System calls that Python has no function for, to try what ch-run does. All raise OSError.

They change the process that calls them: it must be one made for that, with one thread.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

# linux/sched.h, linux/mount.h, fcntl.h
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
PRIVATE_BELOW = 0x40000 | 0x4000  # MS_PRIVATE, MS_REC
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
TREE_CLONE, ATTRIBUTE_READ_ONLY = 1, 1

# From 424 on the same on every architecture (runtime/kernel.h).
OPEN_TREE, FSOPEN, MOUNT_SETATTR = 428, 430, 442


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    """Return what a call did, or raise its error."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces that flags name for new ones (unshare(2))."""
    _checked(_libc().unshare(flags))


def map_ids(uid: int, gid: int) -> None:
    """Keep one's IDs in a new user namespace (user_namespaces(7))."""
    Path("/proc/self/setgroups").write_text("deny\n")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1\n")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1\n")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount (mount(2))."""
    words = (os.fsencode(word) for word in (source, target, kind))
    _checked(_libc().mount(*words, ctypes.c_ulong(flags), os.fsencode(data)))


def unmount(target: str) -> None:
    """Take a mount away (umount(2))."""
    _checked(_libc().umount2(os.fsencode(target), 0))


def call(number: int, *words: int | bytes) -> int:
    """Make a system call by its number."""
    plain = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    return _checked(_libc().syscall(ctypes.c_long(number), *plain))


def enter_namespaces() -> None:
    """Make a user and a mount namespace of one's own, as ch-run does."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEW_USER)
    map_ids(uid, gid)
    unshare(NEW_MOUNTS)
    mount("none", "/", "", PRIVATE_BELOW)
