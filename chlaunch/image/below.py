"""What a layer takes from the layers below it: modes of directories, and files that it has hard links to."""

import errno
import os
import stat

from chlaunch.image.inside import LINKS_MOST, Inside, Names
from chlaunch.image.members import XATTR_KEPT, XATTR_OVERLAY, names_of
from chlaunch.trees import Parts, Stack

MODE = 0o1777
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Bytes copied at a time; the kernel may share them instead, if both files are in one file system.
PIECE, SMALL_PIECE = 64 << 20, 1 << 20
ELSEWHERE = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Below:
    """Layers, seen as one, and the directory of one upon them. Methods raise OSError.

    copied: where files of the layers below are in this layer already.
    """

    def __init__(self, inside: Inside, tree: Stack) -> None:
        """Begin. tree: the layers below."""
        self._inside = inside
        self._tree = tree
        self._copied: dict[Parts, Names] = {}

    def fit_directory(self, path: str) -> None:
        """Give a directory without a member of its own mode and time of the one below, if there is one."""
        names = names_of(path)
        status = self._tree.status(_parts(names))
        if status is not None and stat.S_ISDIR(status.st_mode):
            place = self._inside.directory(names, None)
            os.fchmod(place.descriptor, status.st_mode & MODE | stat.S_IRWXU)
            os.utime(place.descriptor, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def make_link(self, path: str, target: str) -> None:
        """Make a hard link to what is below: as a copy, and as a link to that if there is one.

        Raises:
            ValueError: there is nothing to link to, or a directory.

        """
        names = names_of(path)
        above = self._inside.directory(names[:-1], None)
        before = os.fstat(above.descriptor)
        source = self._find(target)
        known = self._copied.get(source)
        # The mark that layers below have no such name, which is no longer needed.
        _remove_whiteout(above.descriptor, names[-1])
        if known is None:
            self._copy(source, above.descriptor, names[-1])
            self._copied[source] = names
        else:
            from_here = os.dup(self._inside.directory(known[:-1], None).descriptor)
            try:
                above = self._inside.directory(names[:-1], None)
                os.link(
                    known[-1],
                    names[-1],
                    src_dir_fd=from_here,
                    dst_dir_fd=above.descriptor,
                    follow_symlinks=False,
                )
            finally:
                os.close(from_here)
        os.utime(above.descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _find(self, target: str) -> Parts:
        """Return where the target of a hard link is; links on the way are followed, itself it may be one."""
        names = _parts(names_of(target))
        found: Parts = ()
        todo = list(reversed(names[:-1]))
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                found = found[:-1]
                continue
            mode = self._tree.mode((*found, part))
            if mode is not None and stat.S_ISLNK(mode):
                links += 1
                if links > LINKS_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                link = self._tree.target((*found, part))
                found = () if link.startswith("/") else found
                todo.extend(part for part in reversed(link.split("/")) if part not in ("", "."))
            else:
                found = (*found, part)
        return (*found, names[-1])

    def _copy(self, source: Parts, above: int, name: bytes) -> None:
        status = self._tree.status(source)
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise ValueError("a hard link to what is no file")
        times = (status.st_mtime_ns, status.st_mtime_ns)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.fsencode(self._tree.target(source)), name, dir_fd=above)
            os.utime(name, ns=times, dir_fd=above, follow_symlinks=False)
            return
        file = os.open(name, NEW, 0o600, dir_fd=above)
        try:
            with self._tree.open(source) as original:
                os.fchmod(file, status.st_mode & MODE)
                copy_content(original.fileno(), file, status.st_size)
                copy_attributes(original.fileno(), file)
            os.utime(file, ns=times)
        finally:
            os.close(file)


def _parts(names: Names) -> Parts:
    """Return names as trees have them: as text in the locale's encoding."""
    return tuple(os.fsdecode(name) for name in names)


def _remove_whiteout(above: int, name: bytes) -> None:
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISCHR(status.st_mode):
        os.unlink(name, dir_fd=above)


def copy_content(source: int, target: int, size: int) -> None:
    """Copy a file's content; its holes stay holes."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            done = _copy_piece(source, target, at, min(PIECE, end - at))
            if not done:
                raise OSError(errno.EIO, "a file ends too early")
            at += done


def _copy_piece(source: int, target: int, at: int, size: int) -> int:
    """Copy some bytes from a place to the same place; return how many."""
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in ELSEWHERE:
            raise
    return os.pwrite(target, os.pread(source, min(size, SMALL_PIECE), at), at)


def copy_attributes(source: int, target: int) -> None:
    """Copy the extended attributes that a layer's files have."""
    kept, overlay = os.fsdecode(XATTR_KEPT), os.fsdecode(XATTR_OVERLAY)
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name.startswith(kept) and not name.startswith(overlay):
            os.setxattr(target, name, os.getxattr(source, name))
