"""RSYNC, which is Charliecloud's: what the host's rsync makes of the context, put into the image.

It is run each time, into an empty directory, and what came of it is what the step is known by: options may
pick files in ways that nobody else knows.
"""

import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.errors import BuildError
from chlaunch.image.build import copies, copying, sources
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin, Wanted
from chlaunch.image.build.state import derived
from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.records import Layer
from chlaunch.rootfs import over
from chlaunch.trees import Directory

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

# As Charliecloud has them: +m keeps metadata, +u copies all links as they are, +z nothing by default. Its +l
# copies what links lead to, also outside of the context, where a Dockerfile has nothing to look for.
PRESETS = {
    "": ("-a", "--no-owner", "--no-group", "--safe-links"),
    "m": ("-a", "--no-owner", "--no-group", "--safe-links"),
    "u": ("-a", "--no-owner", "--no-group", "--links"),
    "z": (),
}

# Options that do the same (rsync(1)), and the letters of theirs.
FOLLOWING = ("--copy-l", "--copy-u", "--copy-d")
FOLLOWING_LETTERS = "Lk"


def rsync(builder: "Builder", progress: "Progress", instruction: syntax.Rsync) -> None:
    """Carry out RSYNC.

    Raises:
        BuildError: a source is missing or lies outside; rsync failed.

    """
    state, place = progress.state, instruction.place
    context = builder.request.context
    if context is None:
        raise place.failed("there is no context", 0, "give a directory instead of -")
    _check(instruction)
    if any(option.startswith("--del") for option in instruction.options):
        builder.remark("RSYNC --delete: left out, what the image has stays")
    the_context = Origin(Directory(str(context)), "the context")
    found = sources.found(the_context, Wanted(instruction.sources), place)
    one_file = len(found) == 1 and stat.S_ISREG(found[0][1].st_mode)
    with builder.store.work() as staged:
        names = [name for word in instruction.sources for name in _names(the_context, word, place)]
        _call(instruction, names, context, staged)
        origin = Origin(Directory(str(staged)), "what rsync made")
        rows = [row for row in sources.entries(origin, (), staged.stat(), (), ()) if row.names]
        asks = [instruction.destination, state.config.directory, one_file, builder.request.source_date]

        def work(directory: Path) -> Layer | None:
            stack = state.stack(builder.store)
            goal = Goal(instruction.destination, over(stack, "the image so far"), state.config.directory)
            target = copying.place_of(goal.image, goal.target)
            if one_file and not goal.is_directory:
                placed = [replace(row, names=target) for row in rows]
            else:
                placed = [replace(row, names=(*target, *row.names)) for row in rows]
            return copies.written(builder, stack, placed, directory, place)

        builder.do(progress, instruction, derived(state.key, ["RSYNC", *asks, _digest(rows)]), work)


def _digest(rows: list[Entry]) -> str:
    """Return the digest of what rsync brought, times included: it keeps those on purpose."""
    return derived(sources.digest(rows, None), [row.time for row in rows if stat.S_ISREG(row.mode)])


def _names(origin: Origin, word: str, place: Place) -> Iterator[str]:
    """Give the paths that a source names, relative to the context; no link is on the way."""
    context = over(origin.tree, origin.shown)
    for path in sources.matching(origin, word, place):
        above, _, last = path.rpartition("/")
        is_content = word.endswith("/") or not last
        real = context.locate(path if is_content else above or "/")
        if real is not None:
            yield real.strip("/") + "/" if is_content else f"{real}/{last}".strip("/")


def _check(instruction: syntax.Rsync) -> None:
    """Raise BuildError where links would be followed out of the context."""
    letters = "".join(option for option in instruction.options if not option.startswith("--"))
    follows = any(option.startswith(FOLLOWING) for option in instruction.options)
    if instruction.preset == "l" or follows or any(letter in letters for letter in FOLLOWING_LETTERS):
        raise instruction.place.failed(
            "what links lead to is not copied",
            0,
            "it may lie outside of the context; copy it into that first",
        )


def _call(instruction: syntax.Rsync, names: Sequence[str], context: Path, target: Path) -> None:
    """Run rsync in the context. names: of sources there, with no link on the way."""
    # Whatever a source is called, it is neither an option nor a host.
    paths = [f"./{name}" for name in names]
    words = ["rsync", *PRESETS[instruction.preset], *instruction.options, "--", *paths, f"{target}/"]
    try:
        done = subprocess.run(
            words,
            cwd=context,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise instruction.place.failed("rsync is not installed", 0, "install rsync, or use COPY") from error
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BuildError(f"build failed: {instruction.place.shown}: {why[0]}", "see rsync(1)")
