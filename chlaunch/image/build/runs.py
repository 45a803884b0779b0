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

from chlaunch.errors import BuildError
from chlaunch.image import locks
from chlaunch.image.build import copies, copying, running, sources
from chlaunch.image.build.running import Bind, Running
from chlaunch.image.build.state import State, derived
from chlaunch.image.dockerfile import checks, syntax
from chlaunch.image.dockerfile.mounts import Mount
from chlaunch.image.store import Layer

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

SSH_SOCKET = "/run/buildkit/ssh_agent.0"  # as BuildKit calls it
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
SCRIPT = "/ch/run"

NO_NETWORK = ("unshare", "--user", "--map-root-user", "--net")


@dataclass
class Mounts:
    """What a step sees besides the image. before: words in front of its command line."""

    binds: list[Bind] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()


def run(builder: "Builder", progress: "Progress", instruction: syntax.Run) -> None:
    """Carry out RUN.

    Raises:
        CommandError: the command failed.
        BuildError: a mount can't be had.

    """
    state, request = progress.state, builder.request
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
        with _mounts(builder, progress, instruction, directory) as mounts:
            words = _script(instruction, argv, directory, mounts)
            network = NO_NETWORK if instruction.network == "none" else ()
            how = Running(
                request.ch_run,
                state.config.directory,
                running.environment({**progress.scope.for_run, **mounts.variables}, request.environment),
                (*request.binds, *mounts.binds),
                request.force,
                (*mounts.before, *network),
                mounts.secrets,
                request.interactive,
                request.shell,
            )
            done = running.run(builder.store, _trees(builder, state), words, how, work_directory)
        running.clamp(done.tree, request.source_date)
        if not any(done.tree.iterdir()):
            return None
        done.tree.rename(directory / "layer")
        return Layer("", "", "", done.size, done.members)

    builder.do(progress, instruction, key, work)


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


def _trees(builder: "Builder", state: State) -> list[Path]:
    """Return the layers to run in.

    Raises:
        BuildError: there are none.

    """
    trees = state.trees(builder.store)
    if not trees:
        raise BuildError("RUN in an image without files", "FROM an image, or COPY a root file system first")
    return trees


def _mount_key(builder: "Builder", progress: "Progress", instruction: syntax.Run, mount: Mount) -> object:
    """Return what a step's result depends on of a mount: of secrets and caches only that there are."""
    if mount.kind != "bind":
        return [mount.kind, mount.target, mount.identifier, mount.read_only]
    said = [mount.kind, mount.target, mount.source, mount.read_only]
    if mount.origin:
        return [*said, builder.origin(mount.origin, progress.step.stage, instruction).key]
    return [*said, sources.digest(copies.entries_of_context(builder, mount.source, instruction))]


@contextmanager
def _mounts(
    builder: "Builder", progress: "Progress", instruction: syntax.Run, directory: Path
) -> Iterator[Mounts]:
    """Give what a step sees; what is only for it is made in directory."""
    mounts = Mounts()
    with ExitStack() as stack:
        for number, mount in enumerate(instruction.mounts):
            target = checks.absolute(progress.state.config.directory or "/", mount.target)
            place = directory / f"mount{number}"
            match mount.kind:
                case "bind":
                    _bind(builder, progress, instruction, replace(mount, target=target), place, mounts)
                case "cache":
                    stack.enter_context(_cache(builder, mount, target, mounts))
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
            raise instruction.place.wrong(f"{mount.source}: not in {mount.origin}", mount.source or 0)
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


@contextmanager
def _cache(builder: "Builder", mount: Mount, target: str, mounts: Mounts) -> Iterator[None]:
    """Show a directory that outlives builds. With sharing=locked and private, one build has it at a time."""
    name = hashlib.sha256(mount.identifier.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    above = builder.store.path / "cache" / "mounts"
    (above / name).mkdir(
        mode=0o755 if mount.mode is None else mount.mode | 0o700, parents=True, exist_ok=True
    )
    mounts.binds.append(Bind(above / name, target, read_only=mount.read_only))
    if mount.sharing == "shared":
        yield
        return
    with locks.held(above / f"{name}.lock", f"using cache {mount.identifier}", builder.means.events.say):
        yield


def _secret(builder: "Builder", instruction: syntax.Run, mount: Mount, place: Path, mounts: Mounts) -> None:
    """Show a secret as a file, or a variable, or both."""
    secret = builder.request.secrets.get(mount.identifier)
    if secret is None:
        if mount.required:
            raise instruction.place.wrong(
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
        raise BuildError(
            f"can't read secret {mount.identifier}: {error.filename}: {error.strerror}"
        ) from error
    if mount.variable:
        mounts.secrets[mount.variable] = content.decode("utf-8", "surrogateescape")
    if mount.target:
        descriptor = os.open(
            place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400 if mount.mode is None else mount.mode
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        mounts.binds.append(Bind(place, mount.target))


def _ssh(builder: "Builder", instruction: syntax.Run, mount: Mount, mounts: Mounts) -> None:
    """Show the user's SSH agent, and the hosts that the user knows: nobody is there to say yes to others."""
    agent = builder.request.ssh.get(mount.identifier)
    if not agent or not Path(agent).is_socket():
        if mount.required:
            raise instruction.place.wrong(
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
