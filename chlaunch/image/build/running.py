"""RUN: a command in the image so far, whose changes become a layer.

The command is started by ch-run in an overlay: the layers below, and on them a directory that takes what is
written (--write-to), which is then renamed into storage. It is root there, and privileged calls succeed
without doing anything (ch-run --seccomp). It gets no input and exactly the variables of the build.
"""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chlaunch.errors import BuildError, ImageError
from chlaunch.image.build import orphans
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store
from chlaunch.rootfs import Rootfs, over
from chlaunch.trees import Directory, Stack

# Of images that say nothing, as Docker has it.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What makes programs work that do not ask what they may: GNU tar as root restores owners; fakeroot(1).
ALWAYS = {"TAR_OPTIONS": "--no-same-owner", "FAKEROOTDONTTRYCHOWN": "1"}

# Variables of the host that a command gets too and that are no part of what it is known by.
PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)

IMAGE = "image"


@dataclass(frozen=True)
class Tamed:
    """A program that won't run without privilege unless told. It is there if probe is; file gets content."""

    probe: str
    file: str
    content: str
    reason: str


TAMED = (
    Tamed(
        "/etc/apt/apt.conf.d",
        "/etc/apt/apt.conf.d/zz-chlaunch",
        'APT::Sandbox::User "root";\n',
        "apt becomes user _apt to download, and looks whether it has (apt.conf(5), APT::Sandbox)",
    ),
)


@dataclass(frozen=True)
class Bind:
    """Something of the host that the command sees. target: in the image."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Running:
    """How to run a command. force: seccomp, fakeroot or none. before: words in front of ch-run.

    variables: all that it gets; secrets: some more. shell: on a failure, start one there, on the terminal.
    """

    ch_run: str
    directory: str
    variables: Mapping[str, str]
    binds: tuple[Bind, ...] = ()
    force: str = "seccomp"
    before: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    interactive: bool = False
    shell: bool = False


@dataclass(frozen=True)
class Done:
    """What a command left. tree: a layer's. size, members: of the files in it."""

    tree: Path
    size: int
    members: int


class CommandError(BuildError):
    """A command of the build failed. code: what it ended with; as a shell has it for a signal."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        """Keep all three."""
        super().__init__(message, hint)
        self.code = code


def run(store: Store, trees: Sequence[Path], argv: Sequence[str], running: Running, work: Path) -> Done:
    """Run a command in an image of layers and return what it changed. work: a directory of the storage's.

    Raises:
        CommandError: it failed.
        ImageError: ch-run failed.

    """
    below = Stack("", tuple(Directory(str(path)) for path in reversed(trees)))
    kept = work / "to"
    for name in ("to", f"images/{IMAGE}", "tamed"):
        (work / name).mkdir(parents=True)
    shorts = "".join(f"{path.name}\n" for path in trees)
    (work / "images" / IMAGE / "layers").write_text(shorts)
    (work / "l").symlink_to(store.path / "l")
    binds = (*running.binds, *_tamed(over(below, "image"), work / "tamed"))
    words = _words(running, work, binds, argv)
    code = _wait(words, running)
    if code and running.shell:
        _wait([*words[: words.index("--") + 1], "/bin/sh"], running, interactive=True)
    if code:
        remove_tree(kept)
        raise _failed(code)
    _remove_stubs(kept / "upper", below, [bind.target for bind in binds])
    size, members = _settled(kept / "upper")
    return Done(kept / "upper", size, members)


def environment(variables: Mapping[str, str], host: Mapping[str, str]) -> dict[str, str]:
    """Return all variables of a command: the build's, what always is, and the host's proxies."""
    proxies = {name: host[name] for name in PROXIES if host.get(name)}
    return {"PATH": PATH, "HOME": "/root", **proxies, **ALWAYS, **variables}


def _words(running: Running, work: Path, binds: Sequence[Bind], argv: Sequence[str]) -> list[str]:
    """Return the command line."""
    if running.force == "fakeroot":
        argv = ("fakeroot", *argv)
    seccomp = ("--seccomp",) if running.force == "seccomp" else ()
    mounts = [f"--bind{'-ro' if bind.read_only else ''}={bind.source}:{bind.target}" for bind in binds]
    bound = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    return [
        *running.before,
        *bound,
        running.ch_run,
        f"--storage={work}",
        f"--write-to={work / 'to'}",
        "--uid=0",
        "--gid=0",
        "--no-passwd",
        "--no-tmp",
        *seccomp,
        f"--cd={running.directory or '/'}",
        *mounts,
        IMAGE,
        "--",
        *argv,
    ]


def _wait(words: Sequence[str], running: Running, *, interactive: bool = False) -> int:
    """Run a line to its end, with all that it leaves behind; return its code."""
    variables = {**running.variables, **running.secrets}
    with orphans.reaped():
        try:
            done = subprocess.run(
                words,
                stdin=None if interactive or running.interactive else subprocess.DEVNULL,
                env=variables,
                check=False,
            )
        except OSError as error:
            raise ImageError(
                f"can't execute {words[0]}: {error.strerror}", "install chlaunch again"
            ) from error
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _failed(code: int) -> CommandError:
    """Return the failure of a command."""
    why = f"exited with {code}"
    if code > 128 and code - 128 in {number.value for number in signal.Signals}:  # noqa: PLR2004  as shells say it
        why = f"was ended by {signal.Signals(code - 128).name}"
    return CommandError(
        f"build failed: RUN command {why}",
        "for a shell where it failed: ch-image build --on-failure=shell",
        code,
    )


def _tamed(image: Rootfs, work: Path) -> Iterator[Bind]:
    """Give the files by which programs are told, where the image has the programs."""
    for number, row in enumerate(TAMED):
        if image.is_directory(row.probe) and image.mode(row.file) is None:
            source = work / str(number)
            source.write_text(row.content)
            yield Bind(source, row.file)


def _remove_stubs(upper: Path, below: Stack, targets: Sequence[str]) -> None:
    """Remove the mount points that were made for a step: what is empty, and nobody else made."""
    image = over(below, "image")
    for target in targets:
        path = target.rstrip("/")
        while path.strip("/"):
            there = upper / path.lstrip("/")
            if image.mode(path) is not None or not _is_empty(there):
                break
            (there.rmdir if there.is_dir() else there.unlink)()
            path = path.rpartition("/")[0]


def _is_empty(path: Path) -> bool:
    """Say whether path is a directory or file with nothing in it."""
    try:
        mode = path.lstat()
        return (
            not any(path.iterdir())
            if stat.S_ISDIR(mode.st_mode)
            else stat.S_ISREG(mode.st_mode) and not mode.st_size
        )
    except OSError:
        return False


def _settled(upper: Path) -> tuple[int, int]:
    """Make what a command left readable for its owner; return the bytes of its files and their number."""
    size = members = 0
    for top, directories, files, descriptor in os.fwalk(upper, topdown=True):
        del top
        for name in directories:
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(name, stat.S_IMODE(mode) | stat.S_IRWXU, dir_fd=descriptor)
        for name in files:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            members += 1
            if stat.S_ISREG(status.st_mode):
                size += status.st_size
                if not status.st_mode & stat.S_IRUSR:
                    os.chmod(name, stat.S_IMODE(status.st_mode) | stat.S_IRUSR, dir_fd=descriptor)
    return size, members


def clamp(upper: Path, source_date: float | None) -> None:
    """Let nothing below upper be newer than source_date (SOURCE_DATE_EPOCH), if that is set."""
    if source_date is None:
        return
    most = int(source_date * 1e9)
    for _, directories, files, descriptor in os.fwalk(upper, topdown=False):
        for name in (*directories, *files):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if status.st_mtime_ns > most:
                os.utime(name, ns=(most, most), dir_fd=descriptor, follow_symlinks=False)
    os.utime(upper, ns=(most, most))
