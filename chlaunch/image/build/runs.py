"""RUN as a step of a build: its command, its variables, and what it is known by."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image.build import settings
from chlaunch.image.build.state import State, derived
from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.command import Command
from chlaunch.image.records import Layer

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress
    from chlaunch.image.build.mounted import Looked


def run(builder: "Builder", progress: "Progress", instruction: syntax.Run) -> None:
    """Carry out RUN; with --force=fakeroot after a step of its own that installs that, where it is not there.

    Raises:
        CommandError: the command failed.
        BuildError: a mount can't be had, or fakeroot.

    """
    force = builder.request.force
    if force == "fakeroot" and progress.state.layers:
        installing = _installing(builder, progress.state, instruction)
        if installing:
            _step(builder, progress, installing, "seccomp")
    _step(builder, progress, instruction, force)


def _installing(builder: "Builder", state: State, instruction: syntax.Run) -> syntax.Run | None:
    """Return the instruction that puts fakeroot into an image, in front of another one; None if it is there.

    Raises:
        BuildError: nobody knows how.

    """
    from chlaunch.image.build import taming  # noqa: PLC0415  2 ms to load, and for few

    image = state.rootfs(builder.store)
    if taming.has(image, "fakeroot"):
        return None
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
    looked = _looked(builder, progress, instruction) if instruction.mounts else []
    if not settings.is_root(state.config.user):
        asks.append(state.config.user)  # whose home is HOME
        why = "noted for who runs the image; RUN is root all the same, with that user's HOME"
        builder.remark(f"USER {state.config.user}: {why}")
    key = derived(state.key, [*asks, [one.key for one in looked], force, request.source_date])

    def work(directory: Path) -> Layer | None:
        from chlaunch.image.build import executing  # noqa: PLC0415  5 ms to load, and not for what is cached

        what = executing.Execution(builder, progress, instruction, argv, force, key)
        return executing.execute(what, directory, looked)

    builder.do(progress, instruction, key, work)


def _looked(builder: "Builder", progress: "Progress", instruction: syntax.Run) -> "list[Looked]":
    """Return what there is to mount."""
    from chlaunch.image.build import mounted  # noqa: PLC0415  3 ms to load, and for few

    step = mounted.Step(builder, progress, instruction)
    mounted.remark(step)
    return [mounted.look(step, mount) for mount in instruction.mounts]


def with_commands(text: str, commands: Sequence[Sequence[str]]) -> str:
    """Return a shell's text with words put behind programs: --force-cmd."""
    for name, *words in commands:
        pieces = re.split(rf"(?<![\w./-]){re.escape(name)}(?![\w./=-])", text)
        text = f"{name} {shlex.join(words)}".join(pieces)
    return text
