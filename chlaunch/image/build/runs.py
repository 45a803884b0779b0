"""RUN as a step of a build: its command, its variables, and what it is known by."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image import top
from chlaunch.image.build import mounted, running, steps, taming
from chlaunch.image.build.binds import Bind, Seen
from chlaunch.image.build.mounted import Mounts, Step
from chlaunch.image.build.running import CommandError, Running
from chlaunch.image.build.state import State, derived
from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.command import Command
from chlaunch.image.dockerfile.place import said
from chlaunch.image.records import SINGLE, Layer
from chlaunch.rootfs import Rootfs

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

SCRIPT = "/ch/run"
AGAIN = "this step will be done again"


def run(builder: "Builder", progress: "Progress", instruction: syntax.Run) -> None:
    """Carry out RUN; with --force=fakeroot after a step of its own that installs that, where it is not there.

    Raises:
        CommandError: the command failed.
        BuildError: a mount can't be had, or fakeroot.

    """
    force = builder.request.force
    if force == "fakeroot" and progress.state.layers:
        image = progress.state.rootfs(builder.store)
        if not taming.has(image, "fakeroot"):
            _step(builder, progress, _installing(image, instruction), "seccomp")
    _step(builder, progress, instruction, force)


def _installing(image: Rootfs, instruction: syntax.Run) -> syntax.Run:
    """Return the instruction that puts fakeroot into an image, in front of another one.

    Raises:
        BuildError: nobody knows how.

    """
    row = taming.installer(image)
    if row is None:
        known = ", ".join(row.program for row in taming.INSTALLERS)
        why = f"--force=fakeroot: the image has no fakeroot, and no package manager that is known: {known}"
        raise instruction.place.failed(why, 0, "COPY a fakeroot into it, or do with --force=seccomp")
    place = replace(instruction.place, original=f"RUN {row.command} # --force=fakeroot")
    return syntax.Run(place, Command(("/bin/sh", "-c", row.command), for_shell=False))


def _step(builder: "Builder", progress: "Progress", instruction: syntax.Run, force: str) -> None:
    """Carry out one RUN. force: how privileged calls are dealt with."""
    state, request = progress.state, builder.request
    argv = instruction.command.argv(state.config.shell or ("/bin/sh", "-c"))
    if instruction.command.for_shell:
        argv = (*argv[:-1], with_commands(argv[-1], request.commands))
    variables = progress.scope.visible
    asks = ["RUN", argv, sorted(variables.items()), state.config.directory or "/", instruction.network]
    step = Step(builder, progress, instruction)
    _remark(step, state)
    looked = [mounted.look(step, mount) for mount in instruction.mounts]
    asks += [] if running.is_root(state.config.user) else [state.config.user]  # whose home is HOME
    key = derived(state.key, [*asks, [one.key for one in looked], force, request.source_date])

    def work(directory: Path) -> Layer | None:
        work_directory = directory / "run"
        work_directory.mkdir()
        trees = _trees(instruction, builder, state)
        whole = _copied(builder, trees, work_directory)
        with mounted.given(step, looked, directory) as mounts:
            words = _script(instruction, argv, directory, mounts)
            if force == "fakeroot":
                words = ("fakeroot", *words)
            how = Running(
                request.ch_run,
                state.config.directory,
                running.environment(
                    {**mounts.variables, **progress.scope.for_run},
                    request.environment,
                    state.rootfs(builder.store),
                    state.config.user,
                ),
                (*request.binds, *_checked(mounts.binds, instruction)),
                force,
                instruction.network,
                mounts.secrets,
                request.interactive,
                request.shell,
                request.apart,
                request.source_date,
            )
            try:
                tree, found = running.run(builder.store, trees, words, how, work_directory, whole)
            except CommandError as error:
                raise _placed(error, instruction) from error
            if mounted.has_changed(mounts):
                builder.unsteady.add(key)
                builder.remark(
                    f"{instruction.place.shown}: files of the context have changed meanwhile: {AGAIN}"
                )
        if not any(tree.iterdir()) and not _is_opaque(tree):
            return None
        tree.rename(directory / "layer")
        dropped = {"set-id bits": found.set_id} if found.set_id else {}
        return Layer(SINGLE if whole else steps.STEP, "", "", found.size, found.members, dropped)

    builder.do(progress, instruction, key, work)


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


def _remark(step: Step, state: State) -> None:
    """Tell what is not as the words say."""
    if not running.is_root(state.config.user):
        why = "noted for who runs the image; RUN is root all the same, with that user's HOME"
        step.builder.remark(f"USER {state.config.user}: {why}")
    mounted.remark(step)


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


def with_commands(text: str, commands: Sequence[Sequence[str]]) -> str:
    """Return a shell's text with words put behind programs: --force-cmd."""
    for name, *words in commands:
        pieces = re.split(rf"(?<![\w./-]){re.escape(name)}(?![\w./=-])", text)
        text = f"{name} {shlex.join(words)}".join(pieces)
    return text


def _script(instruction: syntax.Run, argv: Sequence[str], directory: Path, mounts: Mounts) -> Sequence[str]:
    """Return the command; a here-document that begins with ``#!`` is a program of its own."""
    command = instruction.command
    if not (command.for_shell and command.alone and command.text.startswith("#!")):
        return argv
    file = directory / "script"
    file.write_text(command.text, errors="surrogateescape")
    file.chmod(0o755)
    mounts.binds.append(Bind(file, SCRIPT))
    return (SCRIPT,)


def _trees(instruction: syntax.Run, builder: "Builder", state: State) -> list[Path]:
    """Return the layers to run in.

    Raises:
        BuildError: there are none.

    """
    trees = state.trees(builder.store)
    if not trees:
        hint = "FROM an image, or COPY a root file system first"
        raise instruction.place.failed("RUN in an image without files", 0, hint)
    return trees
