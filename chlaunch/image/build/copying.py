"""COPY and ADD: where files go in the image so far, and the layer that they become."""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chlaunch.image.below import Below, copy_attributes, copy_content
from chlaunch.image.build.sources import Entry, Origin, Wanted, entries, found
from chlaunch.image.dockerfile import checks
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.inside import DEPTH_MOST, Inside
from chlaunch.rootfs import LINKS_MAX, Rootfs
from chlaunch.trees import Parts, Stack

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
KEPT = 0o1777

# chmod(1), which --chmod follows.
CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXstugo]*)")
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


def destined(
    origin: Origin, wanted: Wanted, goal: Goal, place: Place, *, several: bool = False
) -> list[Entry]:
    """Return what sources bring, each at its place in the image. several: there are others, too.

    Raises:
        BuildError: a source is not there; several go to what is no directory.

    """
    rows = found(origin, wanted, place)
    into = goal.is_directory or wanted.parents
    if (several or len(rows) > 1) and not into:
        why = f"several sources, and {goal.word} is no directory"
        raise place.failed(why, goal.word, "end it with a slash")
    top = place_of(goal.image, goal.target)
    result: list[Entry] = []
    for parts, status, name in rows:
        below: Parts = tuple(name.split("/")) if name else ()
        alone = stat.S_ISDIR(status.st_mode) and not wanted.parents
        names = top if alone or not into else (*top, *below)
        result.extend(
            replace(row, named=row.parts == parts)
            for row in entries(origin, parts, status, names, wanted.excludes)
        )
    # The directory that is named as destination keeps its mode, if it is there.
    is_there = goal.image.is_directory(goal.target)
    return [row for row in result if not (is_there and row.names == top)]


def landed(rows: Sequence[Entry], image: Rootfs, place: Place) -> list[Entry]:
    """Return entries sorted, each where links in the image lead to; of two with one name, the later.

    Raises:
        BuildError: a directory goes where a file is, or a file where a directory is.

    """
    known: dict[Parts, Entry] = {}
    for row in rows:  # of two directories, the files of both
        known[row.names] = row
    moved: dict[Parts, Parts] = {(): ()}
    result: dict[Parts, Entry] = {}
    for names in sorted(known):
        row = known[names]
        if not names:
            continue
        if names[:-1] not in moved:
            moved[names[:-1]] = place_of(image, "/" + "/".join(names[:-1]))
        here = (*moved[names[:-1]], names[-1])
        if stat.S_ISDIR(row.mode):
            here = moved[names] = place_of(image, "/" + "/".join(here))
        _check_landing(here, row, result, image, place)
        result[here] = replace(row, names=here)
    return [result[names] for names in sorted(result)]


def _check_landing(
    here: Parts, row: Entry, others: Mapping[Parts, Entry], image: Rootfs, place: Place
) -> None:
    """Raise BuildError if an entry can't be where it goes."""
    shown = "/" + "/".join(here)
    other = others.get(here)
    for end in range(1, len(here)):
        above = others.get(here[:end])
        mode = image.mode("/" + "/".join(here[:end])) if above is None else above.mode
        if mode is not None and not stat.S_ISDIR(mode):
            raise place.failed(
                f"{'/' + '/'.join(here[:end])} is no directory", 0, "choose another destination"
            )
    there = (None if image.link(shown) else image.mode(shown)) if other is None else other.mode
    if there is not None and stat.S_ISDIR(there) != stat.S_ISDIR(row.mode):
        kinds = ("a directory", "a file") if stat.S_ISDIR(there) else ("a file", "a directory")
        raise place.failed(f"{shown} is {kinds[0]}, and {kinds[1]} is copied there", 0, "remove it first")


def texts(bodies: Sequence[tuple[str, str]], goal: Goal, time: int, *, several: bool) -> list[Entry]:
    """Return what here-documents bring: names and contents. time: in ns. several: there are other sources."""
    into = goal.is_directory or several or len(bodies) > 1
    top = place_of(goal.image, goal.target)
    nowhere = Origin(Stack("", ()), "here-document")
    return [
        Entry(
            (*top, name) if into else top,
            nowhere,
            (),
            stat.S_IFREG | 0o644,
            time,
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
        for copied in set(what) & set(SHIFTS):
            value |= bits >> SHIFTS[copied] & 7
        users = SHIFTS if not who or "a" in who else who
        mask = sum(7 << SHIFTS[user] for user in set(users))
        wanted = sum(value << SHIFTS[user] for user in set(users)) | stat.S_ISVTX * ("t" in what)
        bits = bits | wanted if sign == "+" else bits & ~wanted if sign == "-" else bits & ~mask | wanted
    return bits


def _changed(mode: int, chmod: str) -> int:
    return stat.S_IFMT(mode) | changed_mode(mode, chmod)


def place_of(image: Rootfs, path: str) -> Parts:
    """Return where a path of an image leads, links followed, also those to what is not there yet."""
    for _ in range(LINKS_MAX):
        parts = [part for part in path.split("/") if part]
        end = len(parts)
        while end and image.locate("/" + "/".join(parts[:end])) is None:
            end -= 1
        real = image.locate("/" + "/".join(parts[:end])) or "/"  # an image may have no files
        rest = parts[end:]
        link = image.link(f"{real}/{rest[0]}") if rest else ""
        if not link:
            return (*(part for part in real.split("/") if part), *rest)
        path = checks.absolute(real, "/".join((link, *rest[1:])))
    return tuple(part for part in path.split("/") if part)


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
        for names, stamp in list(inside.implied.items()):
            os.utime(inside.directory(names, None).descriptor, ns=(stamp, stamp))
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
