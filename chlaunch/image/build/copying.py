"""COPY and ADD: where files go in the image so far, and the layer that they become."""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chlaunch.image.below import Below, copy_attributes, copy_content
from chlaunch.image.build.sources import Entry, Origin, Wanted, entries, found
from chlaunch.image.dockerfile import checks
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.inside import Inside
from chlaunch.image.unpack import DEPTH_MOST
from chlaunch.rootfs import Rootfs
from chlaunch.trees import Parts, Stack

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
KEPT = 0o1777

# chmod(1), which --chmod follows.
CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
SHIFTS = {"u": 6, "g": 3, "o": 0}
ANY_RUNS = 0o111


@dataclass(frozen=True)
class Goal:
    """Where files go: a word, in an image so far, whose WORKDIR is directory."""

    word: str
    image: Rootfs
    directory: str

    @property
    def target(self) -> str:
        """Return the absolute path, links not followed."""
        return checks.absolute(self.directory or "/", self.word)

    @property
    def is_directory(self) -> bool:
        """Say whether files go into it, under their own names."""
        return (
            self.word.endswith(("/", "/."))
            or self.word in (".", "..")
            or self.image.is_directory(self.target)
        )


def destined(origin: Origin, wanted: Wanted, goal: Goal, place: Place) -> list[Entry]:
    """Return what sources bring, each at its place in the image.

    Raises:
        BuildError: a source is not there; several go to what is no directory.

    """
    rows = found(origin, wanted, place)
    into = goal.is_directory or wanted.parents
    if len(rows) > 1 and not into:
        why = f"several sources, and {goal.word} is no directory"
        raise place.wrong(why, goal.word, "end it with a slash")
    top = place_of(goal.image, goal.target)
    result: list[Entry] = []
    for parts, status, name in rows:
        below: Parts = tuple(name.split("/")) if name else ()
        alone = stat.S_ISDIR(status.st_mode) and not wanted.parents
        names = top if alone or not into else (*top, *below)
        result.extend(entries(origin, parts, status, names, wanted.excludes))
    # A directory that is there keeps its mode. Of two with one name, the later counts.
    is_there = goal.image.is_directory(goal.target)
    known = {row.names: row for row in result if not (is_there and row.names == top)}
    return [known[names] for names in sorted(known)]


def texts(bodies: Sequence[tuple[str, str]], goal: Goal) -> list[Entry]:
    """Return what here-documents bring: names and contents."""
    into = goal.is_directory or len(bodies) > 1
    top = place_of(goal.image, goal.target)
    nowhere = Origin(Stack("", ()), "here-document")
    return [
        Entry(
            (*top, name) if into else top,
            nowhere,
            (),
            stat.S_IFREG | 0o644,
            0,
            body.encode("utf-8", "surrogateescape"),
        )
        for name, body in bodies
    ]


def with_mode(rows: Sequence[Entry], chmod: str) -> list[Entry]:
    """Return entries with the modes that --chmod gives them; links have none."""
    if not chmod:
        return list(rows)
    return [row if stat.S_ISLNK(row.mode) else replace(row, mode=_changed(row.mode, chmod)) for row in rows]


def changed_mode(mode: int, chmod: str) -> int:
    """Return the permissions that chmod(1) would make of those of st_mode. chmod: octal or symbolic."""
    if chmod.isdigit():
        return int(chmod, 8) & 0o7777
    bits = stat.S_IMODE(mode)
    for who, sign, what in CLAUSE.findall(chmod):
        runs = "x" in what or ("X" in what and (stat.S_ISDIR(mode) or bool(bits & ANY_RUNS)))
        value = 4 * ("r" in what) | 2 * ("w" in what) | runs
        users = SHIFTS if not who or "a" in who else who
        mask = sum(7 << SHIFTS[user] for user in set(users))
        wanted = sum(value << SHIFTS[user] for user in set(users)) | stat.S_ISVTX * ("t" in what)
        bits = bits | wanted if sign == "+" else bits & ~wanted if sign == "-" else bits & ~mask | wanted
    return bits


def _changed(mode: int, chmod: str) -> int:
    return stat.S_IFMT(mode) | changed_mode(mode, chmod)


def place_of(image: Rootfs, path: str) -> Parts:
    """Return where a path of an image leads, links followed as far as there is something."""
    parts = [part for part in path.split("/") if part]
    for end in range(len(parts), -1, -1):
        real = image.locate("/" + "/".join(parts[:end]))
        if real is not None:
            return (*(part for part in real.split("/") if part), *parts[end:])
    return tuple(parts)


def write(rows: Sequence[Entry], tree: Path, below: Stack, time: int | None) -> tuple[int, int]:
    """Write entries into an empty directory, as a layer; return the bytes of its files, and their number.

    below: the layers below. time: in ns, which no file is to be newer than; None for the present.

    Raises:
        OSError: it can't be written.

    """
    size = 0
    with Inside(str(tree), DEPTH_MOST) as inside:
        for row in rows:
            names = tuple(os.fsencode(name) for name in row.names)
            if names:
                size += _make(row, names, inside, time)
        fit = Below(inside, below)
        for names in list(inside.implied):
            fit.fit_directory(b"/".join(names).decode("utf-8", "surrogateescape"))
        for row in reversed(rows):
            if stat.S_ISDIR(row.mode) and row.names:
                names = tuple(os.fsencode(name) for name in row.names)
                stamp = _time(row, time)
                os.utime(inside.directory(names, None).descriptor, ns=(stamp, stamp))
    return size, len(rows)


def _make(row: Entry, names: tuple[bytes, ...], inside: Inside, time: int | None) -> int:
    """Make one; return its bytes."""
    stamp = _time(row, time)
    if stat.S_ISDIR(row.mode):
        place = inside.directory(names, stamp)
        inside.implied.pop(place.names, None)
        os.fchmod(place.descriptor, row.mode & KEPT | stat.S_IRWXU)
        return 0
    above = inside.directory(names[:-1], stamp)
    if stat.S_ISLNK(row.mode):
        os.symlink(os.fsencode(row.origin.tree.target(row.parts)), names[-1], dir_fd=above.descriptor)
        os.utime(names[-1], ns=(stamp, stamp), dir_fd=above.descriptor, follow_symlinks=False)
        return 0
    file = os.open(names[-1], NEW, 0o600, dir_fd=above.descriptor)
    try:
        size = _fill(row, file)
        os.fchmod(file, row.mode & KEPT | stat.S_IRUSR | stat.S_IWUSR)
        os.utime(file, ns=(stamp, stamp))
    finally:
        os.close(file)
    return size


def _fill(row: Entry, file: int) -> int:
    """Write a file's content and attributes; return its bytes."""
    if row.content is not None:
        with os.fdopen(os.dup(file), "wb") as stream:
            return stream.write(row.content)
    with row.open() as original:
        size = os.fstat(original.fileno()).st_size
        copy_content(original.fileno(), file, size)
        copy_attributes(original.fileno(), file)
    return size


def _time(row: Entry, most: int | None) -> int:
    """Return when a file shall have been changed."""
    return row.time if most is None else min(row.time, most)
