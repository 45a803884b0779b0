"""What ADD does and COPY does not with what is in the network.

See repositories.py for those of git, and archives.py for what it unpacks.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from chlaunch.errors import BuildError, ChlaunchError
from chlaunch.image.build import copying, sources
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin
from chlaunch.image.dockerfile import gitref, syntax
from chlaunch.image.dockerfile.place import Place
from chlaunch.trees import Directory

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder

SCHEMES = ("http://", "https://", "ftp://")
REMOTE = ("http://", "https://")


@dataclass(frozen=True)
class Fetched:
    """Files by the URLs they are from, and the digest of all of them."""

    files: Mapping[str, Path]
    digest: str


def is_url(word: str) -> bool:
    """Say whether a source is not a path."""
    return word.startswith(SCHEMES) or gitref.is_git(word)


def urls(instruction: syntax.Copy | syntax.Add) -> list[str]:
    """Return the sources that are neither paths nor repositories.

    Raises:
        BuildError: one that nobody fetches here.

    """
    found = [word for word in instruction.sources if is_url(word)]
    for word in found:
        if isinstance(instruction, syntax.Copy):
            raise instruction.place.failed("COPY takes no URL", word, "ADD does")
        if not (word.startswith(REMOTE) or gitref.is_git(word)):
            hint = "ADD fetches http and https, and repositories of git"
            raise instruction.place.failed(f"can't fetch {word}", word, hint)
    return [word for word in found if not gitref.is_git(word)]


@contextmanager
def looked_at(
    builder: "Builder", instruction: syntax.Copy | syntax.Add, words: Sequence[str]
) -> Iterator[Fetched]:
    """Give what is at URLs now; no files where a checksum says what that must be.

    Raises:
        BuildError: it can't be had.

    """
    if not words or (isinstance(instruction, syntax.Add) and instruction.checksum):
        yield Fetched({}, "")
        return
    with builder.store.work() as directory:
        files = fetch(builder, directory / "urls", instruction, words)
        rows = [_row(file, url, (str(number),)) for number, (url, file) in enumerate(files.items())]
        yield Fetched(files, sources.digest(rows, None))


def fetch(
    builder: "Builder", directory: Path, instruction: syntax.Copy | syntax.Add, words: Sequence[str]
) -> dict[str, Path]:
    """Return the files at URLs, by these, in a directory that is not there yet.

    Raises:
        BuildError: one can't be had, or has another checksum.

    """
    checksum = instruction.checksum if isinstance(instruction, syntax.Add) else ""
    found: dict[str, Path] = {}
    for number, url in enumerate(words):
        file = directory / str(number)
        directory.mkdir(exist_ok=True)
        try:
            builder.means.fetch(url, file, checksum)
        except ChlaunchError as error:
            raise BuildError(
                f"build failed: {instruction.place.shown}: {error.message}", error.hint
            ) from error
        file.chmod(0o600)  # as in Docker: only its owner may read it
        found[url] = file
    return found


def entry(file: Path, url: str, goal: Goal, place: Place) -> Entry:
    """Return a fetched file at its place: where that is a directory, under the name at the URL's end.

    Raises:
        BuildError: there is none.

    """
    name = unquote(posixpath.basename(urlsplit(url).path))
    top = copying.place_of(goal.image, goal.target)
    if not goal.is_directory:
        return _row(file, url, top)
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        hint = "name the file at the end of the destination"
        raise place.failed(f"{url} has no name at its end", url, hint)
    return _row(file, url, (*top, name))


def _row(file: Path, url: str, names: tuple[str, ...]) -> Entry:
    """Return a file on its way."""
    status = file.stat()
    origin = Origin(Directory(str(file.parent)), url)
    return Entry(names, origin, (file.name,), status.st_mode, status.st_mtime_ns, named=True)
