"""RSYNC, which is Charliecloud's: what the host's rsync makes of the context, put into the image.

It is run each time, into an empty directory, and what came of it is what the step is known by: options may
pick files in ways that nobody else knows.
"""

import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.errors import BuildError
from chlaunch.image.build import copies, copying, sources
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin, Wanted
from chlaunch.image.build.state import derived
from chlaunch.image.dockerfile import syntax
from chlaunch.image.records import Layer
from chlaunch.rootfs import over
from chlaunch.trees import Directory

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

# As Charliecloud has them: +m keeps metadata, +l also follows links that lead outside, +u copies all links as
# they are, +z nothing by default.
PRESETS = {
    "": ("-a", "--no-owner", "--no-group", "--safe-links"),
    "m": ("-a", "--no-owner", "--no-group", "--safe-links"),
    "l": ("-a", "--no-owner", "--no-group", "--copy-unsafe-links"),
    "u": ("-a", "--no-owner", "--no-group", "--links"),
    "z": (),
}


def rsync(builder: "Builder", progress: "Progress", instruction: syntax.Rsync) -> None:
    """Carry out RSYNC.

    Raises:
        BuildError: a source is missing or lies outside; rsync failed.

    """
    state, place = progress.state, instruction.place
    context = builder.request.context
    if context is None:
        raise place.failed("there is no context", 0, "give a directory instead of -")
    if any(option.startswith("--del") for option in instruction.options):
        builder.remark("RSYNC --delete: left out, what the image has stays")
    found = sources.found(Origin(Directory(str(context)), "the context"), Wanted(instruction.sources), place)
    one_file = len(found) == 1 and stat.S_ISREG(found[0][1].st_mode)
    with builder.store.work() as staged:
        _call(instruction, context, staged)
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


def _call(instruction: syntax.Rsync, context: Path, target: Path) -> None:
    """Run rsync in the context."""
    # Whatever a source is called, it is neither an option nor a host.
    names = [f"./{source.lstrip('/')}" for source in instruction.sources]
    words = ["rsync", *PRESETS[instruction.preset], *instruction.options, "--", *names, f"{target}/"]
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
