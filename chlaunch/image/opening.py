"""Find storage, make it where there is none, and refuse what is not ours; see store.py."""

import os
import stat
from pathlib import Path

from chlaunch.errors import StorageError
from chlaunch.image import locks
from chlaunch.image.locks import Say
from chlaunch.image.records import read
from chlaunch.image.store import Store

VERSION = 1
DIRECTORIES = ("l", "layers", "images", "deleted", "blobs/sha256", "blobs/partial", "tmp", "locks", "cache")
FILES = ("version", "lock")
NAMES = frozenset((*FILES, *(name.partition("/")[0] for name in DIRECTORIES)))

CHARLIECLOUD = "charliecloud's storage"

# What other programs' storage is known by.
FOREIGN = (
    ({"img", "dlcache"}, CHARLIECLOUD),
    ({"overlay-images", "overlay-layers"}, "podman's storage"),
    ({"oci-layout", "index.json"}, "an OCI image layout"),
    ({"bin", "etc", "usr"}, "a root file system"),
)

ELSEWHERE = "choose an empty or new directory with --storage or CH_IMAGE_STORAGE"
BRING = "its images can be imported there: ch-image import {}/img/NAME NAME"

DIGITS_MOST = 9


def open_store(path: Path, say: Say, *, create: bool = True) -> Store | None:
    """Return the storage at path, made if it is not there; None if it is not and it should not be made.

    Raises:
        StorageError: it is something else, belongs to somebody else, or has a version that is not known here.

    """
    if not _is_directory(path, create=create):
        return None
    store = Store(path)
    version = _version(path)
    if version is None:
        if not create and not (path / "version").exists():
            return None
        with locks.held(path / "lock", "making storage", say):
            version = _version(path) or _adopt(store)
    if version != VERSION:
        raise StorageError(
            f"storage has version {version}, and this chlaunch knows {VERSION}: {path}",
            "use the chlaunch that made it, or another directory: --storage or CH_IMAGE_STORAGE",
        )
    if create:
        store.sweep()
    return store


def _is_directory(path: Path, *, create: bool) -> bool:
    """Say whether there is a directory that nobody else can have put there.

    Raises:
        StorageError: somebody else has, or it can't be made, or is none.

    """
    try:
        if create:
            path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not create:
            return False
        why = "not a directory" if isinstance(error, FileExistsError) else os.strerror(error.errno or 0)
        raise StorageError(f"can't use storage directory: {path}: {why}", ELSEWHERE) from error
    open_to_all = bool(path.parent.stat().st_mode & stat.S_IWOTH)
    if status.st_uid != os.geteuid() and (stat.S_ISLNK(status.st_mode) or open_to_all):
        raise StorageError(f"storage directory belongs to user {status.st_uid}: {path}", ELSEWHERE)
    if not path.is_dir():
        raise StorageError(f"storage is not a directory: {path}", ELSEWHERE)
    return True


def _version(path: Path) -> int | None:
    """Return the version of the storage at path; None if it is none.

    Raises:
        StorageError: it is something else.

    """
    text = read(path / "version").decode("ascii", errors="replace").strip()
    # Charliecloud's has such a file, too.
    if text.isdigit() and len(text) <= DIGITS_MOST and (path / "layers").is_dir():
        return int(text)
    try:
        foreign = sorted({entry.name for entry in os.scandir(path)} - NAMES)
    except OSError as error:
        raise StorageError(
            f"can't read storage directory: {path}: {os.strerror(error.errno or 0)}"
        ) from error
    if not text and not foreign:
        return None
    kind = next((kind for names, kind in FOREIGN if names <= set(foreign)), "")
    shown = ", ".join(ascii(name)[1:-1] for name in foreign[:3]) or "version"
    raise StorageError(
        f"storage directory is {kind or 'not ours'}: {path} (it has: {shown})",
        f"{ELSEWHERE}\n{BRING.format(path)}" if kind == CHARLIECLOUD else ELSEWHERE,
    )


def _adopt(store: Store) -> int:
    """Make storage of a directory that is empty, or that a killed command was making; return its version."""
    try:
        for name in DIRECTORIES:
            (store.path / name).mkdir(parents=True, exist_ok=True)
        store.write(store.path / "version", f"{VERSION}\n".encode())
    except OSError as error:
        raise StorageError(
            f"can't make storage: {error.filename or store.path}: {os.strerror(error.errno or 0)}",
            ELSEWHERE,
        ) from error
    return VERSION
