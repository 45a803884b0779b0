"""ADD of git repositories: they are known by the commit, so that what has not moved is not fetched again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.errors import BuildError, ChlaunchError
from chlaunch.image.build import copying, sources
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin
from chlaunch.image.dockerfile import gitref, syntax
from chlaunch.image.dockerfile.gitref import GitRef, GitRefError
from chlaunch.image.dockerfile.place import Place
from chlaunch.rootfs import Rootfs, over
from chlaunch.trees import Directory, Parts

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder
    from chlaunch.image.build.git import Resolved


def resolved(builder: "Builder", instruction: syntax.Copy | syntax.Add) -> dict[str, "Resolved"]:
    """Return the commits that an instruction's repositories mean now, by its words.

    Raises:
        BuildError: a word makes no sense; there is no such commit.

    """
    if not isinstance(instruction, syntax.Add):
        return {}
    found = {}
    for word in instruction.sources:
        if gitref.is_git(word):
            ref = _wanted(word, instruction)
            with _placed(instruction.place):
                if ref not in builder.commits:  # what moves meanwhile is for the next build
                    builder.commits[ref] = builder.git.resolve(ref)
            found[word] = builder.commits[ref]
    return found


def key(wanted: "Resolved") -> list[object]:
    """Return what a repository's files depend on. Where relative submodules are depends on its URL."""
    ref = wanted.ref
    kept = [wanted.object, wanted.name] if ref.keep_git_dir else []
    return ["git", ref.remote, wanted.commit, ref.subdir, ref.submodules is not False, *kept]


def entries(
    builder: "Builder", instruction: syntax.Add, wanted: Mapping[str, "Resolved"], directory: Path, goal: Goal
) -> list[Entry]:
    """Return the files of repositories at their places. directory: for them, until the layer is made.

    Raises:
        BuildError: they can't be had; a directory of one is not there.

    """
    top = copying.place_of(goal.image, goal.target)
    is_there = goal.image.is_directory(goal.target)
    rows: list[Entry] = []
    for number, (word, commit) in enumerate(wanted.items()):
        tree = directory / f"git{number}"
        with _placed(instruction.place):
            builder.git.fetch(commit, tree)
        parts = subdirectory(tree, commit.ref)
        if parts is None:
            why = f"{commit.ref.remote} has no directory {commit.ref.subdir} in commit {commit.commit}"
            raise instruction.place.failed(why, word, "it is relative to the repository's root")
        origin = Origin(Directory(str(tree)), commit.ref.remote)
        status = origin.tree.status(parts)
        assert status is not None  # noqa: S101  it is a directory of ours
        found = sources.entries(origin, parts, status, top, instruction.excludes)
        # The directory that is named as destination keeps its mode, if it is there.
        rows.extend(row for row in found if not (is_there and row.names == top))
    return rows


def view(tree: Path, shown: str) -> Rootfs:
    """Return the view of fetched files in which links are followed, and lead nowhere else."""
    return over(Directory(str(tree)), shown)


def subdirectory(tree: Path, ref: GitRef) -> Parts | None:
    """Return where a reference's directory is in a repository's files, and never outside; None if nowhere."""
    rootfs = view(tree, ref.remote)
    real = rootfs.locate(f"/{ref.subdir}")
    if real is None or not rootfs.is_directory(real):
        return None
    return tuple(part for part in real.split("/") if part)


def _wanted(word: str, instruction: syntax.Add) -> GitRef:
    """Return what a word and the flags mean, of which the word may say some, too."""
    place = instruction.place
    try:
        ref = gitref.parse(word)
    except GitRefError as error:
        raise place.failed(str(error), word, "https://HOST/PATH.git#BRANCH_OR_TAG:DIRECTORY") from None
    checksum = instruction.checksum
    if checksum and gitref.CHECKSUM.fullmatch(checksum) is None:
        raise place.failed(f"{checksum} is no commit's hash", "--checksum", "git rev-parse HEAD says it")
    if checksum and ref.checksum not in ("", checksum):
        raise place.failed("two checksums that differ", "--checksum", "leave one of them away")
    keep = (instruction.keep_git_dir or bool(ref.keep_git_dir)) and not ref.subdir  # as BuildKit
    return replace(ref, checksum=checksum or ref.checksum, keep_git_dir=keep)


@contextmanager
def _placed(place: Place) -> Iterator[None]:
    """Name the instruction in what fails."""
    try:
        yield
    except ChlaunchError as error:
        raise BuildError(f"build failed: {place.shown}: {error.message}", error.hint) from error
