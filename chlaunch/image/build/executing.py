"""RUN carried out: in the image so far, with what it mounts; what it changes becomes a layer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image import top
from chlaunch.image.build import mounted, running, steps
from chlaunch.image.build.binds import Bind, Seen
from chlaunch.image.build.mounted import Looked, Mounts
from chlaunch.image.build.running import CommandError, Running
from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.place import said
from chlaunch.image.records import SINGLE, Layer

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

SCRIPT = "/ch/run"
AGAIN = "this step will be done again"


@dataclass(frozen=True)
class Execution:
    """A RUN that is to be done. argv: its command; force: what of privileged calls; key: of the step."""

    builder: "Builder"
    progress: "Progress"
    instruction: syntax.Run
    argv: Sequence[str]
    force: str
    key: str


def execute(what: Execution, directory: Path, looked: Sequence[Looked]) -> Layer | None:
    """Return the layer of what a command has changed, which is then in directory; None if that is nothing.

    Raises:
        CommandError: the command failed.
        BuildError: a mount can't be had.

    """
    builder, instruction = what.builder, what.instruction
    own = directory / "run"
    own.mkdir()
    trees = _trees(what)
    whole = _copied(builder, trees, own)
    with mounted.given(mounted.Step(builder, what.progress, instruction), looked, directory) as mounts:
        words = _script(what, directory, mounts)
        try:
            tree, found = running.run(builder.store, trees, words, _running(what, mounts), own, whole)
        except CommandError as error:
            raise _placed(error, instruction) from error
        if mounted.has_changed(mounts):
            builder.unsteady.add(what.key)
            builder.remark(f"{instruction.place.shown}: files of the context have changed meanwhile: {AGAIN}")
    if not any(tree.iterdir()) and not _is_opaque(tree):
        return None
    tree.rename(directory / "layer")
    dropped = {"set-id bits": found.set_id} if found.set_id else {}
    return Layer(SINGLE if whole else steps.STEP, "", "", found.size, found.members, dropped)


def _running(what: Execution, mounts: Mounts) -> Running:
    """Return how to run the command."""
    state, request = what.progress.state, what.builder.request
    variables = {**mounts.variables, **what.progress.scope.for_run}
    image = state.rootfs(what.builder.store)
    return Running(
        request.ch_run,
        state.config.directory,
        running.environment(variables, request.environment, image, state.config.user),
        (*request.binds, *_checked(mounts.binds, what.instruction)),
        what.force,
        what.instruction.network,
        mounts.secrets,
        request.interactive,
        request.shell,
        request.apart,
        request.source_date,
    )


def _copied(builder: "Builder", trees: Sequence[Path], directory: Path) -> Path | None:
    """Return a copy of all files, for a command to write to where no overlay can be; else None.

    Raises:
        ImageError: something can't be copied.

    """
    why = builder.unstackable()
    if not why:
        return None
    from chlaunch.image import roots  # noqa: PLC0415  hardly ever needed, and 30 ms to load
    from chlaunch.image.tools import Tools  # noqa: PLC0415  likewise

    builder.remark(f"each RUN gets a copy of all files: {why}")
    copy = roots.merged(trees, directory, Tools(builder.request.environment, builder.means.events))
    top.complete(copy)
    return copy


def _placed(error: CommandError, instruction: syntax.Run) -> CommandError:
    """Return a failure that says which command it was."""
    place = instruction.place
    return CommandError(f"{error.message}, at {place.shown}: {said(place.original)}", error.hint, error.code)


def _checked(binds: Sequence[Seen], instruction: syntax.Run) -> Sequence[Seen]:
    """Return mounts that ch-run's words can say.

    Raises:
        BuildError: a colon in a path, which separates the two.

    """
    for bind in binds:
        if isinstance(bind, Bind) and ":" in str(bind.source):
            raise instruction.place.failed(f"can't mount {bind.source}: there is a colon in it", 0)
        if ":" in bind.target:
            raise instruction.place.failed(
                f"can't mount at {bind.target}", bind.target, "choose a path without a colon"
            )
    return binds


def _is_opaque(tree: Path) -> bool:
    """Say whether a layer hides all that is below: RUN rm -r of everything."""
    try:
        return os.getxattr(tree, "user.overlay.opaque") == b"y"
    except OSError:
        return False


def _script(what: Execution, directory: Path, mounts: Mounts) -> Sequence[str]:
    """Return the command; a here-document that begins with ``#!`` is a program of its own."""
    command, before = what.instruction.command, ("fakeroot",) if what.force == "fakeroot" else ()
    if not (command.for_shell and command.alone and command.text.startswith("#!")):
        return (*before, *what.argv)
    file = directory / "script"
    file.write_text(command.text, errors="surrogateescape")
    file.chmod(0o755)
    mounts.binds.append(Bind(file, SCRIPT))
    return (*before, SCRIPT)


def _trees(what: Execution) -> list[Path]:
    """Return the layers to run in.

    Raises:
        BuildError: there are none.

    """
    trees = what.progress.state.trees(what.builder.store)
    if not trees:
        hint = "FROM an image, or COPY a root file system first"
        raise what.instruction.place.failed("RUN in an image without files", 0, hint)
    return trees
