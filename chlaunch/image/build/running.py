"""RUN: a command in the image so far, whose changes become a layer.

The command is started by ch-run in an overlay: the layers below, and on them a directory that takes what is
written (--write-to), which is then renamed into storage. It is root there, and privileged calls succeed
without doing anything (ch-run --seccomp). It gets no input and exactly the variables of the build: ch-run
reads them from a file that has no name, for what an image sets (LD_PRELOAD) is not for programs of the host.
"""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chlaunch.errors import BuildError, ImageError
from chlaunch.image.build import copying, left, orphans, settings, taming
from chlaunch.image.build.binds import Seen
from chlaunch.image.build.left import Left
from chlaunch.image.dockerfile.scope import PATH
from chlaunch.image.records import Layer
from chlaunch.image.store import Store
from chlaunch.rootfs import NEEDED, Rootfs, over
from chlaunch.trees import Directory, Stack

# What makes programs work that do not ask what they may: GNU tar as root restores owners; fakeroot(1).
ALWAYS = {"TAR_OPTIONS": "--no-same-owner", "FAKEROOTDONTTRYCHOWN": "1"}

# Variables of the host that a command gets too and that are no part of what it is known by.
PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)

IMAGE = "image"

# Mount points that ch-run makes in images that lack them (ch-run(1)).
USUAL = ("/etc/hosts", "/etc/resolv.conf", "/etc/machine-id")

# The key of a layer that has nothing but those which it does not make.
BOTTOM = "bottom"

# Bytes that ch-run reads of a file with variables.
VARIABLES_MOST = 1 << 20

# Bytes: with less, a failure is likely to come of that.
ROOM_LEAST = 1 << 20


@dataclass(frozen=True)
class Running:
    """How to run a command. force: seccomp, fakeroot or none. network: none, or any other for the host's.

    variables: all that it gets; secrets: some more. shell: on a failure, start one there, on the terminal.
    apart: what it prints goes to standard error. source_date: nothing that it leaves is newer, in seconds.
    """

    ch_run: str
    directory: str
    variables: Mapping[str, str]
    binds: tuple[Seen, ...] = ()
    force: str = "seccomp"
    network: str = "default"
    secrets: Mapping[str, str] = field(default_factory=dict)
    interactive: bool = False
    shell: bool = False
    apart: bool = False
    source_date: float | None = None


class CommandError(BuildError):
    """A command of the build failed. code: what it ended with; as a shell has it for a signal."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        """Keep all three."""
        super().__init__(message, hint)
        self.code = code


def run(  # noqa: PLR0913, PLR0917  one caller
    store: Store,
    trees: Sequence[Path],
    argv: Sequence[str],
    running: Running,
    work: Path,
    whole: Path | None,
) -> tuple[Path, Left]:
    """Run a command in an image of layers; return the tree of what it changed, and what that is.

    work: a directory of the storage's, for this alone. whole: a copy of all files, to be changed instead.

    Raises:
        CommandError: it failed.
        BuildError: it has left what can't be ended, or no layer can have.
        ImageError: ch-run can't be executed.
        OSError: what it left can't be changed.

    """
    below = Stack("", tuple(Directory(str(path)) for path in reversed(trees)))
    (work / "tamed").mkdir()
    changed = whole or work / "to" / "upper"
    image = (
        ["--write", str(whole)]
        if whole
        else _overlay(store, [*_needed(store, over(below, "image")), *trees], work)
    )
    told = taming.files(over(below, "image"), work / "tamed")
    hidden = [f"{bind.target.rstrip('/')}/" for bind in running.binds]
    binds = (*running.binds, *(file for file in told if not file.target.startswith(tuple(hidden))))
    words = _words(running, binds)
    code = _wait(words, [*image, "--", *argv], running)
    if code and running.shell:
        _wait(words, [*image, "--", "/bin/sh"], running, on_terminal=True)
    if code:
        raise _failed(code, store.path)
    points = ["/" + "/".join(copying.place_of(over(below, "image"), bind.target)) for bind in binds]
    left.remove_stubs(changed, below, points if whole else [*USUAL, *points], whole=whole is not None)
    return changed, left.settle(changed, running.source_date)


def environment(
    variables: Mapping[str, str], host: Mapping[str, str], image: Rootfs, user: str
) -> dict[str, str]:
    """Return all variables of a command: the build's, what always is, and the host's proxies.

    user: as USER says it, whose home directory is HOME.
    """
    proxies = {name: host[name] for name in PROXIES if host.get(name)}
    return {"PATH": PATH, "HOME": _home(image, user), **proxies, **ALWAYS, **variables}


def _home(image: Rootfs, user: str) -> str:
    """Return a user's home directory by the image's passwd(5); of one that is not in it, / as with runc."""
    if settings.is_root(user):
        return "/root" if image.is_directory("/root") else "/"
    name = user.partition(":")[0]
    rows = [line.split(":") for line in image.text("/etc/passwd").splitlines()]
    homes = [row[5] for row in rows if len(row) > 5 and row[2 if name.isdecimal() else 0] == name]  # noqa: PLR2004
    return homes[0] if homes and homes[0] else "/"


def _needed(store: Store, image: Rootfs) -> list[Path]:
    """Return a layer to put below all others where an image lacks directories that containers need."""
    if all(image.is_directory(path) for path in NEEDED):
        return []
    layer = store.layer(BOTTOM)
    if layer is None:
        with store.work() as work:
            for path in NEEDED:
                (work / f"bottom{path}").mkdir(mode=0o755, parents=True)
            layer = store.add_layer(work / "bottom", Layer(BOTTOM, ""))
    return [store.tree(layer)]


def _overlay(store: Store, trees: Sequence[Path], work: Path) -> list[str]:
    """Return the words for an image of layers; what is written goes to work/to/upper."""
    for name in ("to", f"images/{IMAGE}"):
        (work / name).mkdir(parents=True)
    shorts = "".join(f"{path.name}\n" for path in trees)
    (work / "images" / IMAGE / "layers").write_text(shorts)
    (work / "l").symlink_to(store.path / "l")
    return [f"--storage={work}", f"--write-to={work / 'to'}", IMAGE]


def _words(running: Running, binds: Sequence[Seen]) -> list[str]:
    """Return the command line up to the image, options for variables left out."""
    network = (_program("unshare"), "--user", "--map-root-user", "--net") if running.network == "none" else ()
    return [
        _program("setpriv"),
        "--pdeathsig",
        "KILL",
        *network,
        running.ch_run,
        "--uid=0",
        "--gid=0",
        "--no-passwd",
        "--no-tmp",
        *(("--seccomp",) if running.force == "seccomp" else ()),
        f"--cd={running.directory or '/'}",
        *(bind.word for bind in binds),
    ]


def _program(name: str) -> str:
    """Return the path of a program of this host (util-linux).

    Raises:
        BuildError: it is not installed.

    """
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"can't run commands: {name} is not installed", "install util-linux")
    return path


def _wait(words: Sequence[str], rest: Sequence[str], running: Running, *, on_terminal: bool = False) -> int:
    """Run a line to its end, with all that it leaves behind; return its code. rest: image and command."""
    on_terminal = on_terminal or running.interactive
    with (
        _unmoved(on_terminal),
        orphans.reaped(),
        _variables({**running.variables, **running.secrets}) as files,
    ):
        variables = [f"--set-env0=/proc/self/fd/{file}" for file in files]
        line = [*words, "--unset-env=*", "--env-no-expand", *variables, *rest]
        try:
            done = subprocess.run(
                line,
                stdin=None if on_terminal else subprocess.DEVNULL,
                stdout=2 if running.apart else None,
                env={},
                pass_fds=files,
                check=False,
            )
        except OSError as error:
            why = f"can't execute {line[0]}: {error.strerror}"
            raise ImageError(why, "install chlaunch again") from error
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


@contextmanager
def _unmoved(on_terminal: bool) -> Iterator[None]:  # noqa: FBT001  whether there is anything to do
    """Leave Ctrl-C to whoever works on the terminal."""
    if not on_terminal or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which a program would inherit
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[list[int]]:
    """Give open files with variables, as ch-run's --set-env0 reads them."""
    pieces = [b""]
    for name, value in variables.items():
        row = f"{name}='{value}'".encode("utf-8", "surrogateescape") + b"\0"
        pieces.append(b"") if len(pieces[-1]) + len(row) > VARIABLES_MOST else None
        pieces[-1] += row
    with ExitStack() as stack:
        files = [os.memfd_create("variables") for _ in pieces]
        for file, piece in zip(files, pieces, strict=True):
            stack.callback(os.close, file)
            with os.fdopen(os.dup(file), "wb") as stream:
                stream.write(piece)
        yield files


def _failed(code: int, storage: Path) -> CommandError:
    """Return the failure of a command."""
    why = f"exited with {code}"
    if code > 128 and code - 128 in {number.value for number in signal.Signals}:  # noqa: PLR2004  as shells say it
        why = f"was ended by {signal.Signals(code - 128).name}"
    hint = "for a shell where it failed: ch-image build --on-failure=shell"
    if shutil.disk_usage(storage).free < ROOM_LEAST:
        hint = f"no room in storage, {storage}: ch-image gc, or another place with --storage\n{hint}"
    return CommandError(f"build failed: RUN command {why}", hint, code)
