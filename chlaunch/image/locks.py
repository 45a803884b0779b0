"""Locks on files (flock(2)), which the kernel lets go when their holder ends, however it ends."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import StorageError

# Seconds. A look costs one system call; waiting in the kernel could not be interrupted in a thread.
LOOK_EVERY = 0.05
SAY_AFTER = 1.0

# What a holder writes into the file: a PID and where it is one.
HOLDER_MOST = 200

# What flock(2) says where a file system has no locks: Lustre without -o flock, NFS without its lock daemon.
NONE_THERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)

Say = Callable[[str], None]


class NoLocksError(StorageError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Patience:
    """How long to wait. seconds: None for as long as a holder lives. stopped: it has no use any more."""

    seconds: float | None = None
    stopped: Callable[[], bool] = lambda: False


ENDLESS = Patience()


@contextmanager
def held(
    path: Path, why: str, say: Say, *, shared: bool = False, patience: Patience = ENDLESS
) -> Iterator[bool]:
    """Hold a lock on the file at path, which is made if it is not there; False if patience ended first.

    why: what others who wait are told, a phrase such as "downloading sha256:12ab". say: is told once whom
    this waits for.

    Raises:
        NoLocksError: the file system has none.
        StorageError: the file can't be made, opened or locked; or waiting was stopped.

    """
    descriptor, got = _open_and_wait(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, say, patience)
    try:
        if got and not shared:
            with suppress(OSError):  # on a full disk nobody is told for whom they wait
                os.ftruncate(descriptor, 0)
                text = f"process {os.getpid()} on {os.uname().nodename}, {why}\n"
                os.pwrite(descriptor, text.encode(errors="replace"), 0)
        try:
            yield got
        finally:
            if got and not shared:
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def is_free(path: Path) -> bool:
    """Say whether nobody holds a lock on the file at path; that it is not there counts as free.

    Raises:
        NoLocksError: the file system has none.
        StorageError: it can't be opened or locked.

    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise StorageError(f"can't open lock: {path}: {os.strerror(error.errno or 0)}") from error
    try:
        return _take(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise _failed(error, path) from error
    finally:
        os.close(descriptor)


def _open_and_wait(path: Path, kind: int, say: Say, patience: Patience) -> tuple[int, bool]:
    """Return a descriptor of the file at path, and whether the lock on it was got; see held()."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"can't open lock: {path}: {os.strerror(error.errno or 0)}") from error
        try:
            got = _wait(descriptor, kind, say, patience)
            if not got or os.fstat(descriptor).st_nlink:
                return descriptor, got
        except OSError as error:
            os.close(descriptor)
            raise _failed(error, path) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed it: others will lock a new one


def _failed(error: OSError, path: Path) -> StorageError:
    """Return the failure of flock(2)."""
    kind = NoLocksError if error.errno in NONE_THERE else StorageError
    hint = "this file system has no locks (Lustre: mount -o flock); choose another"
    return kind(f"can't lock: {path}: {os.strerror(error.errno or 0)}", hint if kind is NoLocksError else "")


def _wait(descriptor: int, kind: int, say: Say, patience: Patience) -> bool:
    """Take a lock; False if it can't be had in time."""
    begun = time.monotonic()
    said = False
    while not _take(descriptor, kind):
        waited = time.monotonic() - begun
        if patience.seconds is not None and waited >= patience.seconds:
            return False
        if patience.stopped():
            raise StorageError("stopped while waiting for another command")
        if not said and waited >= SAY_AFTER:
            holder = os.pread(descriptor, HOLDER_MOST, 0).decode(errors="replace").partition("\n")[0]
            say(f"waiting for {holder if holder.isprintable() and holder else 'another command'}")
            said = True
        time.sleep(LOOK_EVERY)
    return True


def _take(descriptor: int, kind: int) -> bool:
    """Take a lock if nobody else has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
