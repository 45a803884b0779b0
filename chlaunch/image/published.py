"""Image files in a cache that others read from too: found only where nobody else can have put them.

A directory counts if it belongs to root, the user, or an owner whom the site's configuration names, and
nobody else may write to it; so does a file in it. A file is made under a temporary name, with a lock held
beside it, and appears by a rename: that it is made twice, when a lock's holder seems dead or where there are
no locks, does no harm.

A file's time of access tells when it was used last: its owner sets it, for many file systems do not.
"""

import os
import pwd
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from chlaunch.errors import ConfigError, StorageError
from chlaunch.image import locks
from chlaunch.image.locks import Patience, Say

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# Images may be private, and only their owner runs what is in the owner's own cache.
MODE_DIRECTORY, MODE_OWN, MODE_OTHERS = 0o700, 0o600, 0o644

DAY = 86400


def users_directory(environment: Mapping[str, str]) -> Path:
    """Return where a user's own image files are (XDG Base Directory Specification)."""
    cache = environment.get("XDG_CACHE_HOME", "")
    home = (
        Path(cache) if cache.startswith("/") else Path(environment.get("HOME") or "~").expanduser() / ".cache"
    )
    return home / "chlaunch" / "fetched"


def owner_id(name: str) -> int:
    """Return the ID of a user who may own a cache.

    Raises:
        ConfigError: there is no such user.

    """
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise ConfigError(
            f"cache-owner: no such user: {name}", "see --ch-cache-owner in ch-launch(1)"
        ) from error


def distrust(directory: Path, owners: frozenset[int], name: str = "") -> str:
    """Return why a directory, or the file of that name in it, is not to be used; empty if it may be.

    Links are not followed at the end of either path.
    """
    shown = directory / name if name else directory
    try:
        with _opened(directory) as descriptor:
            status = os.fstat(descriptor)
            if name:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError as error:
        return f"{shown}: {os.strerror(error.errno or 0)}"
    if not (stat.S_ISREG if name else stat.S_ISDIR)(status.st_mode):
        return f"{shown}: it is no {'file' if name else 'directory'}"
    if status.st_uid not in owners:
        return f"{shown}: it belongs to user {status.st_uid}"
    if status.st_mode & WRITABLE_BY_OTHERS:
        return f"{shown}: others than its owner may write to it"
    return ""


def find(directory: Path, name: str, owners: frozenset[int]) -> Path | None:
    """Return the file of that name, which is about to be used, if it is there, may be, and can be read."""
    path = directory / name
    usable = not distrust(directory, owners) and not distrust(directory, owners, name)
    if not usable or not os.access(path, os.R_OK):
        return None
    with suppress(OSError):  # it is another's, on a disk that is read-only, or has gone
        status = path.stat()
        # Not more often: what is known of an image's files (launch/cache.py) holds while its ctime does.
        if time.time() - max(status.st_atime, status.st_mtime) > DAY:
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
    return path


def make_directory(directory: Path) -> None:
    """Make the user's own cache, and those above it.

    Raises:
        StorageError: it can't be made.

    """
    try:
        directory.mkdir(mode=MODE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"can't make image cache: {directory}: {os.strerror(error.errno or 0)}",
            "name another place: --ch-cache-dir=DIR",
        ) from error


def lock_of(directory: Path, name: str) -> Path:
    """Return where the lock is that is held while a file is made."""
    return directory / f".{name}.lock"


def publish(
    directory: Path,
    name: str,
    make: Callable[[Path], None],
    say: Say,
    *,
    deadline: float,
) -> Path:
    """Return the path of a file, made if it is not there by the time that it is this process's turn.

    make: writes it to the path that it is given. deadline: seconds to wait for another who is making it.

    Raises:
        StorageError: the directory can't be written to.

    """
    with ExitStack() as stack:
        lock = locks.held(lock_of(directory, name), f"fetching {name}", say, patience=Patience(deadline))
        try:
            got = stack.enter_context(lock)
            if not got:
                say(f"waited for {deadline:.0f} s: fetching {name} here too")
        except locks.NoLocksError as error:
            got = False
            say(f"{error.message}: fetching {name} without; who needs it at the same time may do so too")
        found = find(directory, name, frozenset((os.geteuid(),)))
        if found is not None:
            return found
        # By one who was killed; what is being made has a temporary name of its own, made of that one.
        for left in [*directory.glob(f".{name}.new-*"), *directory.glob(f"..{name}.new-*")] if got else ():
            left.unlink(missing_ok=True)
        _make(directory, name, make)
        return directory / name


def _make(directory: Path, name: str, make: Callable[[Path], None]) -> None:
    """Make a file; see publish()."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.new-", dir=directory)
        os.close(descriptor)
    except OSError as error:
        raise StorageError(
            f"can't write to image cache: {directory}: {os.strerror(error.errno or 0)}"
        ) from error
    try:
        make(Path(temporary))
        with Path(temporary).open("rb+") as file:
            # Whatever the umask: a file that a group may write to would not be trusted the next time.
            is_shared = directory.stat().st_mode & stat.S_IROTH
            os.fchmod(file.fileno(), MODE_OTHERS if is_shared else MODE_OWN)
            os.fsync(file.fileno())
        Path(temporary).rename(directory / name)
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """Give a descriptor of a directory that is no link."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
