"""RUN as a step of a build: its mounts, its variables, and what it is known by."""

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image import locks
from chlaunch.image.build import copies, copying, running, sources, steps
from chlaunch.image.build.running import Bind, CommandError, Running
from chlaunch.image.build.state import State, derived
from chlaunch.image.dockerfile import checks, scope, syntax
from chlaunch.image.dockerfile.mounts import Mount
from chlaunch.image.dockerfile.place import said
from chlaunch.image.records import Layer

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

SSH_SOCKET = "/run/buildkit/ssh_agent.0"  # as BuildKit calls it
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
SCRIPT = "/ch/run"

ROOT = ("", "0", "root", "0:0", "root:root")


@dataclass
class Mounts:
    """What a step sees besides the image."""

    binds: list[Bind] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


def run(builder: "Builder", progress: "Progress", instruction: syntax.Run) -> None:
    """Carry out RUN.

    Raises:
        CommandError: the command failed.
        BuildError: a mount can't be had.

    """
    state, request = progress.state, builder.request
    _remark(builder, state, instruction)
    argv = instruction.command.argv(state.config.shell or ("/bin/sh", "-c"))
    if instruction.command.for_shell:
        argv = (*argv[:-1], with_commands(argv[-1], request.commands))
    variables = progress.scope.visible
    asks = ["RUN", argv, sorted(variables.items()), state.config.directory or "/", instruction.network]
    mounted = [_mount_key(builder, progress, instruction, mount) for mount in instruction.mounts]
    key = derived(state.key, [*asks, mounted, request.force, request.source_date])

    def work(directory: Path) -> Layer | None:
        work_directory = directory / "run"
        work_directory.mkdir()
        trees = _trees(instruction, builder, state)
        with _mounts(builder, progress, instruction, directory) as mounts:
            words = _forced(builder, state, _script(instruction, argv, directory, mounts))
            how = Running(
                request.ch_run,
                state.config.directory,
                running.environment(
                    {**progress.scope.for_run, **mounts.variables},
                    request.environment,
                    state.rootfs(builder.store),
                ),
                (*request.binds, *_checked(mounts.binds, instruction)),
                request.force,
                instruction.network,
                mounts.secrets,
                request.interactive,
                request.shell,
                request.apart,
                request.source_date,
            )
            try:
                tree, found = running.run(builder.store, trees, words, how, work_directory)
            except CommandError as error:
                raise _placed(error, instruction) from error
        if not any(tree.iterdir()) and not _is_opaque(tree):
            return None
        tree.rename(directory / "layer")
        dropped = {"set-id bits": found.set_id} if found.set_id else {}
        return Layer("", "", "", found.size, found.members, dropped)

    builder.do(progress, instruction, key, work)


def _remark(builder: "Builder", state: State, instruction: syntax.Run) -> None:
    """Tell what is not as the words say."""
    if state.config.user not in ROOT:
        builder.remark(f"USER {state.config.user}: noted for who runs the image; RUN is root all the same")
    if any(mount.kind == "cache" and mount.origin for mount in instruction.mounts):
        builder.remark("RUN --mount=type=cache,from=…: the cache begins empty")


def _placed(error: CommandError, instruction: syntax.Run) -> CommandError:
    """Return a failure that says which command it was."""
    place = instruction.place
    return CommandError(f"{error.message}, at {place.shown}: {said(place.original)}", error.hint, error.code)


def _forced(builder: "Builder", state: State, argv: Sequence[str]) -> Sequence[str]:
    """Return a command with fakeroot(1) in front, where that is wanted and there."""
    if builder.request.force != "fakeroot":
        return argv
    image = state.rootfs(builder.store)
    if any(image.is_file(f"{directory}/fakeroot") for directory in scope.PATH.split(":")):
        return ("fakeroot", *argv)
    builder.remark("--force=fakeroot: the image has no fakeroot; until it has, RUN goes without")
    return argv


def _checked(binds: Sequence[Bind], instruction: syntax.Run) -> Sequence[Bind]:
    """Return mounts that ch-run's words can say.

    Raises:
        BuildError: a colon in a path, which separates the two.

    """
    for bind in binds:
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


def _mount_key(builder: "Builder", progress: "Progress", instruction: syntax.Run, mount: Mount) -> object:
    """Return what a step's result depends on of a mount: of secrets and caches only that there are."""
    if mount.kind != "bind":
        return [mount.kind, mount.target, mount.identifier, mount.variable, mount.read_only]
    said = [mount.kind, mount.target, mount.source, mount.read_only]
    if mount.origin:
        return [*said, builder.origin(mount.origin, progress.step.stage, instruction).key]
    return [*said, _digest(builder, mount, instruction)]


def _digest(builder: "Builder", mount: Mount, instruction: syntax.Run) -> str:
    """Return the digest of what a mount shows of the context."""
    rows = copies.entries_of_context(builder, mount.source, instruction)
    return sources.digest(rows, builder.store.path / steps.DIGESTS)


@contextmanager
def _mounts(
    builder: "Builder", progress: "Progress", instruction: syntax.Run, directory: Path
) -> Iterator[Mounts]:
    """Give what a step sees; what is only for it is made in directory."""
    mounts = Mounts()
    with ExitStack() as stack:
        # One after the other, by name: so no two builds wait for each other in a circle.
        for name, identifier in sorted(_locked_caches(instruction)):
            above = builder.store.path / steps.MOUNTS
            above.mkdir(exist_ok=True)
            lock = locks.held(above / f"{name}.lock", f"using cache {identifier}", builder.means.events.say)
            stack.enter_context(lock)
        for number, mount in enumerate(instruction.mounts):
            target = checks.absolute(progress.state.config.directory or "/", mount.target)
            place = directory / f"mount{number}"
            match mount.kind:
                case "bind":
                    _bind(builder, progress, instruction, replace(mount, target=target), place, mounts)
                case "cache":
                    _cache(builder, mount, target, mounts)
                case "tmpfs":
                    place.mkdir(mode=0o755)
                    mounts.binds.append(Bind(place, target, read_only=mount.read_only))
                case "secret":
                    _secret(
                        builder,
                        instruction,
                        replace(mount, target=target if mount.target else ""),
                        place,
                        mounts,
                    )
                case "ssh":
                    _ssh(builder, instruction, mount, mounts)
        yield mounts


def _bind(  # noqa: PLR0913, PLR0917  as the others
    builder: "Builder",
    progress: "Progress",
    instruction: syntax.Run,
    mount: Mount,
    place: Path,
    mounts: Mounts,
) -> None:
    """Show part of the context, of a stage, or of an image; what is written to it is nobody's."""
    place.mkdir(mode=0o755)
    if mount.origin:
        state = builder.origin(mount.origin, progress.step.stage, instruction)
        image = state.rootfs(builder.store)
        real = image.locate(mount.source or "/")
        if real is None:
            raise instruction.place.failed(f"{mount.source}: not in {mount.origin}", mount.source or 0)
        origin = sources.Origin(state.stack(builder.store), mount.origin)
        parts = tuple(part for part in real.split("/") if part)
        status = origin.tree.status(parts)
        rows = [] if status is None else list(sources.entries(origin, parts, status, (), ()))
    else:
        rows = copies.entries_of_context(builder, mount.source, instruction)
    source = place
    if len(rows) == 1 and not rows[0].names and not rows[0].mode & 0o040000:
        rows = [replace(rows[0], names=("file",))]
        source = place / "file"
    copying.write(rows, place, State((), "", progress.state.config).stack(builder.store), None)
    mounts.binds.append(Bind(source, mount.target, read_only=mount.read_only))


def _locked_caches(instruction: syntax.Run) -> set[tuple[str, str]]:
    """Return names and identifiers of caches that one build has at a time: sharing=locked and private."""
    return {
        (_cache_name(mount), mount.identifier)
        for mount in instruction.mounts
        if mount.kind == "cache" and mount.sharing != "shared"
    }


def _cache_name(mount: Mount) -> str:
    return hashlib.sha256(mount.identifier.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _cache(builder: "Builder", mount: Mount, target: str, mounts: Mounts) -> None:
    """Show a directory that outlives builds."""
    place = builder.store.path / steps.MOUNTS / _cache_name(mount)
    place.mkdir(
        mode=0o755 if mount.mode is None else mount.mode & 0o1777 | 0o700, parents=True, exist_ok=True
    )
    mounts.binds.append(Bind(place, target, read_only=mount.read_only))


def _secret(builder: "Builder", instruction: syntax.Run, mount: Mount, place: Path, mounts: Mounts) -> None:
    """Show a secret as a file, or a variable, or both."""
    secret = builder.request.secrets.get(mount.identifier)
    if secret is None:
        if mount.required:
            raise instruction.place.failed(
                f"no secret {mount.identifier}", mount.text, f"--secret=id={mount.identifier},src=FILE"
            )
        return
    try:
        content = (
            secret.value.encode("utf-8", "surrogateescape")
            if secret.file is None
            else secret.file.read_bytes()
        )
    except OSError as error:
        why = f"can't read secret {mount.identifier}: {error.filename}: {error.strerror}"
        raise instruction.place.failed(why, mount.text, "--secret=id=ID,src=FILE") from error
    if mount.variable:
        mounts.secrets[mount.variable] = content.decode("utf-8", "surrogateescape")
    if mount.target:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, 0o400 if mount.mode is None else mount.mode & 0o777)
        mounts.binds.append(Bind(place, mount.target))


def _ssh(builder: "Builder", instruction: syntax.Run, mount: Mount, mounts: Mounts) -> None:
    """Show the user's SSH agent, and the hosts that the user knows: nobody is there to say yes to others."""
    agent = builder.request.ssh.get(mount.identifier)
    if not agent or not Path(agent).is_socket():
        if mount.required:
            raise instruction.place.failed(
                f"no SSH agent {mount.identifier}",
                mount.text,
                "start ssh-agent; --ssh=default, or --ssh=ID=SOCKET",
            )
        return
    target = mount.target or SSH_SOCKET
    mounts.binds.append(Bind(Path(agent), target))
    mounts.variables["SSH_AUTH_SOCK"] = target
    known = Path(builder.request.environment.get("HOME") or "/", ".ssh", "known_hosts")
    if known.is_file():
        mounts.binds.append(Bind(known, KNOWN_HOSTS))
