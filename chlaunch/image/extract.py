"""A layer's members as files: what `unpack` makes of each."""

import errno
import os
import stat
import tarfile
from collections import Counter
from contextlib import suppress

from chlaunch.image.content import Content
from chlaunch.image.inside import Inside, Names, Place
from chlaunch.image.members import (
    OPAQUE,
    OPAQUE_ATTRIBUTE,
    RESERVED,
    WHITEOUT,
    attributes_of,
    names_of,
    parts_of,
    time_of,
)
from chlaunch.image.removal import remove_at

MODE = 0o1777
SET_ID = stat.S_ISUID | stat.S_ISGID
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extraction:
    """Files below a directory, and what else is known of the layer. Methods raise OSError and ValueError.

    dropped: what was not made, by kind. links_below: hard links to what is not in this layer. whiteouts:
    paths that layers below lose. opaque: directories of which layers below are not seen.
    """

    def __init__(self, inside: Inside, content: Content) -> None:
        """Begin with an empty directory."""
        self.dropped: Counter[str] = Counter()
        self.links_below: dict[Names, Names] = {}
        self.whiteouts: set[Names] = set()
        self.opaque: set[Names] = set()
        self._inside = inside
        self._content = content
        self._times: dict[Names, int] = {}
        self._time = 0  # of the member that is being made

    def make(self, member: tarfile.TarInfo) -> None:
        """Make what a member says; what was there under its name goes."""
        names = names_of(member.name)
        self._time = time_of(member)
        if not self._times:
            self._times[()] = self._time
        if not names:
            self._make_top(member)
        elif any(name.startswith(WHITEOUT) for name in names):
            self._note(names)
        elif member.isdir():
            self._make_directory(names, member)
        elif member.type in FILES:
            self._make_file(names, member)
        elif member.issym():
            self._make_link(names, member)
        elif member.islnk():
            self._make_hard_link(names, member)
        elif member.isfifo():
            self._make_fifo(names, member)
        else:
            self.dropped["device" if member.isdev() else "member of unknown kind"] += 1

    def finish(self, *, overlay: bool) -> None:
        """Make marks of overlayfs, if wanted, and set directories' times."""
        for names in sorted(self.whiteouts):
            self._make_whiteout(names, overlay=overlay)
        for names in sorted(self.opaque):
            place = self._existing(names)
            if place is None:
                self.opaque.discard(names)
            elif overlay:
                os.setxattr(place.descriptor, OPAQUE_ATTRIBUTE, b"y")
        for names, time in sorted((self._inside.implied | self._times).items()):
            place = self._existing(names)
            if place is not None:
                os.utime(place.descriptor, ns=(time, time))
        self.links_below = {name: target for name, target in self.links_below.items() if self._is_free(name)}

    def implied(self) -> list[Names]:
        """Return the directories that have no member of their own."""
        return sorted(names for names in self._inside.implied if self._existing(names) is not None)

    def _make_top(self, member: tarfile.TarInfo) -> None:
        if not member.isdir():
            raise ValueError("the root directory can't be of another kind")
        top = self._inside.directory((), None)
        os.fchmod(top.descriptor, self._mode(member) | stat.S_IRWXU)
        self._set_attributes(top.descriptor, member)
        self._times[()] = self._time

    def _make_directory(self, names: Names, member: tarfile.TarInfo) -> None:
        above, name = self._above(names)
        try:
            os.mkdir(name, 0o700, dir_fd=above.descriptor)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=above.descriptor, follow_symlinks=False).st_mode):
                above = self._clear(above, name)
                os.mkdir(name, 0o700, dir_fd=above.descriptor)
        at = (*above.names, name)
        self._inside.implied.pop(at, None)
        self._times[at] = self._time
        # It is a directory, and nobody else is here: no link is followed.
        os.chmod(name, self._mode(member) | stat.S_IRWXU, dir_fd=above.descriptor)
        if member.pax_headers:
            self._set_attributes(self._inside.directory(at, None).descriptor, member)

    def _make_file(self, names: Names, member: tarfile.TarInfo) -> None:
        above, name = self._above(names)
        parts = parts_of(member)
        try:
            file = os.open(name, NEW, 0o600, dir_fd=above.descriptor)
        except FileExistsError:
            above = self._clear(above, name)
            file = os.open(name, NEW, 0o600, dir_fd=above.descriptor)
        try:
            self._fill(file, member, parts)
            os.fchmod(file, self._mode(member) | stat.S_IRUSR | stat.S_IWUSR)
            self._set_attributes(file, member)
            os.utime(file, ns=(self._time, self._time))
        finally:
            os.close(file)

    def _fill(self, file: int, member: tarfile.TarInfo, parts: list[tuple[int, int]]) -> None:
        if member.sparse is not None:
            self._content.count_hole(member.size - sum(size for _, size in parts))
            os.ftruncate(file, member.size)
        for offset, size in parts:
            if member.sparse is not None:
                os.lseek(file, offset, os.SEEK_SET)
            for piece in self._content.take(size):
                done = os.write(file, piece)
                while done < len(piece):
                    done += os.write(file, piece[done:])

    def _make_link(self, names: Names, member: tarfile.TarInfo) -> None:
        above, name = self._above(names)
        target = member.linkname.encode("utf-8", "surrogateescape")
        try:
            os.symlink(target, name, dir_fd=above.descriptor)
        except FileExistsError:
            above = self._clear(above, name)
            os.symlink(target, name, dir_fd=above.descriptor)
        os.utime(name, ns=(self._time, self._time), dir_fd=above.descriptor, follow_symlinks=False)
        if member.pax_headers:
            kept, others = attributes_of(member)
            self._drop("xattr", len(kept) + others)

    def _make_fifo(self, names: Names, member: tarfile.TarInfo) -> None:
        above, name = self._above(names)
        try:
            os.mkfifo(name, 0o600, dir_fd=above.descriptor)
        except FileExistsError:
            above = self._clear(above, name)
            os.mkfifo(name, 0o600, dir_fd=above.descriptor)
        os.chmod(name, self._mode(member) | 0o600, dir_fd=above.descriptor)
        os.utime(name, ns=(self._time, self._time), dir_fd=above.descriptor, follow_symlinks=False)

    def _make_hard_link(self, names: Names, member: tarfile.TarInfo) -> None:
        """Make a hard link; if its target is not in this layer, remember it."""
        target = names_of(member.linkname)
        if not target:
            raise ValueError("a hard link to the root directory")
        above, name = self._above(names)
        at = (*above.names, name)
        try:
            place = self._inside.directory(target[:-1], None)
            target = (*place.names, target[-1])
            status = os.stat(target[-1], dir_fd=place.descriptor, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            status = None
        if status is None:
            target = self.links_below.get(target, target)
            self._clear_if_there(at)
            self.links_below[at] = target
        elif at == target:
            return
        elif stat.S_ISDIR(status.st_mode):
            raise ValueError("a hard link to a directory")
        else:
            self._link(at, target)

    def _link(self, at: Names, target: Names) -> None:
        self._clear_if_there(at)
        source = os.dup(self._inside.directory(target[:-1], None).descriptor)
        try:
            above = self._inside.directory(at[:-1], None).descriptor
            os.link(target[-1], at[-1], src_dir_fd=source, dst_dir_fd=above, follow_symlinks=False)
        finally:
            os.close(source)

    def _note(self, names: Names) -> None:
        """Note what a member says of the layers below."""
        name = names[-1]
        if any(name.startswith(WHITEOUT) for name in names[:-1]):
            self.dropped["member in a directory with a reserved name"] += 1
        elif name == OPAQUE:
            self.opaque.add(self._inside.directory(names[:-1], self._time).names)
        elif not name.startswith(RESERVED):
            hidden = name.removeprefix(WHITEOUT)
            if hidden in (b"", b".", b".."):
                raise ValueError("a whiteout of nothing")
            above = self._inside.directory(names[:-1], self._time)
            self.whiteouts.add((*above.names, hidden))

    def _make_whiteout(self, names: Names, *, overlay: bool) -> None:
        """Make the mark that layers below have no such name, if this layer has none itself."""
        above = self._existing(names[:-1])
        if above is None:
            self.whiteouts.discard(names)
            return
        try:
            status = os.stat(names[-1], dir_fd=above.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            if overlay:
                os.mknod(names[-1], stat.S_IFCHR, 0, dir_fd=above.descriptor)
            return
        if stat.S_ISDIR(status.st_mode):
            self.opaque.add(names)

    def _existing(self, names: Names) -> Place | None:
        try:
            place = self._inside.directory(names, None)
        except OSError:
            return None
        return place if place.names == names else None

    def _is_free(self, names: Names) -> bool:
        above = self._existing(names[:-1])
        if above is None:
            return False
        try:
            status = os.stat(names[-1], dir_fd=above.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return stat.S_ISCHR(status.st_mode)  # a whiteout of ours

    def _above(self, names: Names) -> tuple[Place, bytes]:
        """Return the directory for a member, made where it is missing, and the name in it."""
        above = self._inside.directory(names[:-1], self._time)
        if self.links_below:
            self.links_below.pop((*above.names, names[-1]), None)
        return above, names[-1]

    def _clear_if_there(self, names: Names) -> None:
        above, name = self._above(names)
        with suppress(FileNotFoundError):
            self._clear(above, name)

    def _clear(self, above: Place, name: bytes) -> Place:
        """Remove what has that name, and return the directory anew."""
        at = (*above.names, name)
        remove_at(above.descriptor, name)
        if self.links_below:
            kept = {link: target for link, target in self.links_below.items() if link[: len(at)] != at}
            self.links_below = kept
        self._inside.forget()
        return self._inside.directory(above.names, None)

    def _mode(self, member: tarfile.TarInfo) -> int:
        if member.mode & SET_ID:
            self.dropped["set-id bit"] += 1
        return member.mode & MODE

    def _set_attributes(self, descriptor: int, member: tarfile.TarInfo) -> None:
        if not member.pax_headers:
            return
        kept, dropped = attributes_of(member)
        for name, value in kept.items():
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno in (errno.EIO, errno.EDQUOT):
                    raise
                dropped += 1  # the file system has none, or not so large ones
        self._drop("xattr", dropped)

    def _drop(self, kind: str, count: int) -> None:
        if count:
            self.dropped[kind] += count
