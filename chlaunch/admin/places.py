"""Files below a root directory, found and written as root may do it: name by name, whoever else writes there.

A link is followed only where nobody but root and this user can have made it, and never out of the root; no
file is put where anybody may write. Whoever owns Slurm's configuration decides what root runs already, so
directories of another owner are written to, but their links are not believed.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ChlaunchError, RefusedError

# More than any site's configuration; a plugin has a tenth of it.
SIZE_MAX = 16 << 20

# As the kernel has it (path_resolution(7)).
LINKS_MAX = 40

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Found:
    """A regular file that is there. mode: its permissions; owner: its user and group."""

    content: bytes
    mode: int
    owner: tuple[int, int]


@dataclass(frozen=True)
class Root:
    """The directory that paths begin at, open. path: how messages name it; empty for the host's own."""

    descriptor: int
    path: str

    def shown(self, path: str) -> str:
        """Return an absolute path in here as the host sees it."""
        return f"{self.path}{path}"


@contextmanager
def open_root(path: str) -> Iterator[Root]:
    """Give the root at path.

    Raises:
        ChlaunchError: there is no such directory.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ChlaunchError(f"can't open the root {path}: {error.strerror}") from error
    try:
        named = os.path.abspath(path)  # noqa: PTH100  links stay as they are named
        yield Root(descriptor, "" if named == "/" else named)
    finally:
        os.close(descriptor)


def read(root: Root, path: str) -> Found | None:
    """Return the file at an absolute path below root; None if there is none.

    Raises:
        ChlaunchError: it can't be read, is no regular file, or is larger than SIZE_MAX; RefusedError: others
            can choose what is there.

    """
    with _parent(root, path) as place:
        if place is None:
            return None
        directory, name = place
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
            )
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ChlaunchError(f"{root.shown(path)} is no regular file")
            content = file.read(SIZE_MAX + 1)
    if len(content) > SIZE_MAX:
        raise ChlaunchError(f"{root.shown(path)} has more than {SIZE_MAX >> 20} MiB")
    return Found(content, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def write(root: Root, path: str, new: Found, before: bytes | None) -> None:
    """Put new at path, whole or not at all. before: what is there now, as it was read; None for nothing.

    Raises:
        ChlaunchError: it can't be written, or has changed since; RefusedError: as for read.

    """
    make_directories(root, path)
    with _parent(root, path) as place:
        if place is None:
            raise ChlaunchError(f"the directory of {root.shown(path)} has gone")
        directory, name = place
        temporary = f".{name}.{secrets.token_hex(8)}"  # no pattern of an include or an Epilog matches it
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file:
            try:
                file.write(new.content)
                file.flush()
                if (os.geteuid(), os.getegid()) != new.owner:
                    os.fchown(file.fileno(), *new.owner)
                os.fchmod(file.fileno(), new.mode)
                os.fsync(file.fileno())
                _check_unchanged(root, path, before)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(temporary, dir_fd=directory)
                raise
        os.fsync(directory)


def remove(root: Root, path: str, before: bytes) -> None:
    """Remove the file at path, which holds `before`.

    Raises:
        ChlaunchError: it can't be removed, or has changed since; RefusedError: as for read.

    """
    with _parent(root, path) as place:
        if place is not None:
            _check_unchanged(root, path, before)
            os.unlink(place[1], dir_fd=place[0])


def missing_directories(root: Root, path: str) -> list[str]:
    """Return the directories that path needs and that are not there, outermost first."""
    parts = [part for part in path.split("/") if part][:-1]
    tops = ["/" + "/".join(parts[: end + 1]) for end in range(len(parts))]
    return [top for top in tops if not _exists(root, top)]


def make_directories(root: Root, path: str) -> None:
    """Make the directories that path needs, as everybody may read them."""
    for missing in missing_directories(root, path):
        with _parent(root, missing) as place:
            if place is not None:
                os.mkdir(place[1], 0o755, dir_fd=place[0])
                os.chmod(place[1], 0o755, dir_fd=place[0])  # noqa: S103  whatever the umask


def remove_directories(root: Root, made: tuple[str, ...]) -> None:
    """Remove those of the directories, which we made, that are empty."""
    for path in reversed(made):
        with suppress(ChlaunchError), _parent(root, path) as place:
            if place is not None:
                os.rmdir(place[1], dir_fd=place[0])


def _exists(root: Root, path: str) -> bool:
    """Say whether anything is at path."""
    with _parent(root, path) as place:
        if place is None:
            return False
        try:
            os.stat(place[1], dir_fd=place[0], follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def _check_unchanged(root: Root, path: str, before: bytes | None) -> None:
    """Raise ChlaunchError unless path still holds what was read there."""
    now = read(root, path)
    if (now.content if now else None) != before:
        raise ChlaunchError(f"{root.shown(path)} was changed by somebody just now", "look again: --dry-run")


@contextmanager
def _parent(root: Root, path: str) -> Iterator[tuple[int, str] | None]:
    """Give the open directory in which path is, links followed, and its name there; None if it is missing."""
    opened = [os.dup(root.descriptor)]
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while True:
            if not waiting:
                raise ChlaunchError(f"{root.shown(path)} is a directory")
            name = waiting.pop()
            if name == "..":
                if len(opened) > 1:
                    os.close(opened.pop())
                continue
            _check_writers(root, path, opened[-1])
            target = _link(name, opened[-1])
            if target is not None:
                links += 1
                _check_link(root, path, opened[-1], name, links)
                if target.startswith("/"):
                    _close(opened, 1)
                waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            elif not waiting:
                yield opened[-1], name
                return
            else:
                try:
                    opened.append(os.open(name, _DIRECTORY, dir_fd=opened[-1]))
                except FileNotFoundError:
                    yield None
                    return
    except OSError as error:
        hint = "as root" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise ChlaunchError(f"{root.shown(path)}: {error.strerror}", hint) from error
    finally:
        _close(opened, 0)


def _close(opened: list[int], keep: int) -> None:
    """Close all but so many of the descriptors."""
    while len(opened) > keep:
        os.close(opened.pop())


def _link(name: str, directory: int) -> str | None:
    """Return what the link of that name says; None if it is none."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:  # ENOENT; EINVAL, readlink(2): no link
        return None


def _check_writers(root: Root, path: str, directory: int) -> None:
    """Raise RefusedError where anybody may write into a directory on the way."""
    mode = os.fstat(directory).st_mode
    if mode & stat.S_IWOTH:
        where = Path(f"/proc/self/fd/{directory}").readlink()
        raise RefusedError(
            f"can't use {root.shown(path)}: anybody may write to {where} (mode {stat.S_IMODE(mode):04o})",
            "chmod o-w, or choose another directory: what Slurm loads must be safe from others",
        )


def _check_link(root: Root, path: str, directory: int, name: str, links: int) -> None:
    """Raise RefusedError unless a link may be followed."""
    status = os.fstat(directory)
    if links > LINKS_MAX:
        raise RefusedError(f"{root.shown(path)}: {LINKS_MAX} links, and no end")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS:
        raise RefusedError(
            f"{root.shown(path)}: {name} is a link, in a directory that others can write to",
            "name the directory that it leads to, if that is what you want",
        )


def ourselves() -> tuple[int, int]:
    """Return the owner of what is written anew."""
    return os.geteuid(), os.getegid()
