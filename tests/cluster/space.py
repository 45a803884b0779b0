"""Namespaces with an init of their own, which to those inside are a machine, and running commands in them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Command = str | Sequence[object]  # a str is for the shell; of another sequence, each word's str()
    Files = int | IO[str] | None

START_SECONDS = 30
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"
NAMESPACES = ("mount", "uts", "net", "ipc", "pid")


class UnavailableError(Exception):
    """The host can't run what was asked for; says what it lacks and what to do."""


class MachineError(Exception):
    """Something broke while starting; shows the log."""


class User(NamedTuple):
    """Somebody who may log in."""

    name: str
    uid: int
    home: str


ROOT = User("root", 0, "/root")


class Options(TypedDict, total=False):
    """How a command is run: as whom, with which variables beyond a login's, and where (home if not said).

    net: in another network namespace, by its file.
    """

    user: str
    env: Mapping[str, str | os.PathLike[str]] | None
    cwd: str | os.PathLike[str] | None
    net: str | None


class Space:
    """Mount, UTS, network, IPC and PID namespaces with an init of their own: one machine to those inside."""

    def __init__(self, name: str, users: Iterable[User]) -> None:
        """Name the space; `start` makes it."""
        self.name = name
        self.init_pid = 0
        self._init: int | None = None  # a pidfd: a number could be somebody else's by the time it is used
        self._users = {user.name: user for user in (ROOT, *users)}
        self._process: subprocess.Popen[str] | None = None

    def start(self, script: str, log: Path, *, inside: Sequence[str] = ()) -> None:
        """Make the namespaces and run `script`, made by `script()`, as their init; see `await_ready`.

        `inside` is a command prefix that enters another space and a network namespace made for this one.
        """
        new = [f"--{kind}" for kind in NAMESPACES if not (inside and kind == "net")]
        unshare = ["unshare", *new, "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
        script_file = log.with_suffix(".sh")
        script_file.write_text(script)
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                # The death signal reaches what is below by way of --kill-child.
                ["setpriv", "--pdeathsig=KILL", *inside, *unshare, "sh", "-eu", script_file],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"PATH": ROOT_PATH, "LANG": "C.UTF-8"},
                cwd="/",
                text=True,
                start_new_session=True,  # ^C is for the commands that are run, not for the machine
            )

    def await_ready(self, log: Path) -> None:
        """Return when the init script has come to its end."""
        assert self._process is not None
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        if not readable or self._process.stdout.readline() != "ready\n":
            raise MachineError(f"{self.name} did not start:\n{log.read_text()}")
        self.init_pid = _init_below(self._process.pid)
        self._init = os.pidfd_open(self.init_pid)

    def stop(self) -> None:
        """End everything in the space; return when it is gone."""
        if self._process is None:
            return
        if self._init is None:
            self._process.kill()
        else:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            os.close(self._init)
            self._init = None
        self._process.wait()  # unshare waits for the init, and that for all processes of its namespace
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def enter(self, *, net: str | None = None) -> list[str]:
        """Return the prefix of a command that runs it in here as root; `net` is another network namespace."""
        network = f"--net={net}" if net else "--net"
        return ["nsenter", f"--target={self.init_pid}", "--mount", "--uts", network, "--ipc", "--pid", "--"]

    def popen(
        self, command: Command, stdin: Files, stdout: Files, stderr: Files, **options: Unpack[Options]
    ) -> subprocess.Popen[str]:
        """Start `command` in here as a user (root is one) with the environment of a fresh login."""
        user = self._users[options.get("user", "alice")]
        variables = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "LANG": "C.UTF-8"}
        variables["PATH"] = USER_PATH if user.uid else ROOT_PATH
        variables |= {key: os.fspath(value) for key, value in (options.get("env") or {}).items()}
        directory = os.fspath(options.get("cwd") or user.home)
        identity = [f"--reuid={user.uid}", f"--regid={user.uid}", "--init-groups"]
        return subprocess.Popen(
            [
                *self.enter(net=options.get("net")),
                *("setpriv", *identity, *(["--inh-caps=-all"] if user.uid else []), "--"),
                *("env", "-i", "-C", directory, *(f"{key}={value}" for key, value in variables.items())),
                *(["sh", "-c", command] if isinstance(command, str) else map(str, command)),
            ],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd="/",
            env={"PATH": ROOT_PATH},
            umask=0o022,
            text=True,
        )

    def run(
        self, command: Command, *, timeout: float = 60, check: bool = False, **options: Unpack[Options]
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` to its end without input; return what it wrote and its exit code, or its signal."""
        process = self.popen(command, subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE, **options)
        result = finish(process, timeout)
        if check and result.returncode:
            failure = subprocess.CalledProcessError(
                result.returncode, result.args, result.stdout, result.stderr
            )
            failure.add_note(f"stdout:\n{result.stdout}\nstderr:\n{result.stderr}")
            raise failure
        return result


def finish(process: subprocess.Popen[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Return what a process wrote and its exit code; one that takes too long is killed with all it started."""
    with process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            kill_tree(process.pid)
            output, errors = process.communicate()
            expired.add_note(f"stdout:\n{output}\nstderr:\n{errors}")
            raise
        except BaseException:
            kill_tree(process.pid)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def script(lines: Sequence[str]) -> str:
    """Return an init script: the lines, then ready for commands; orphans are reaped, by ignoring SIGCHLD."""
    return "\n".join(
        ["umask 022", "cd /", *lines, "echo ready", "exec env --ignore-signal=CHLD sleep infinity", ""]
    )


@contextmanager
def readable_files() -> Iterator[None]:
    """Make files that other users can read, whatever root's umask is."""
    umask = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(umask)


def kill_tree(pid: int) -> None:
    """Kill a process and all that descend from it."""
    for child in _children(pid):
        kill_tree(child)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _init_below(pid: int) -> int:
    """Return the init of the namespaces that `pid` made: the end of the chain nsenter, unshare, sh."""
    while _status(pid, "NSpid").split()[-1] != "1":
        (pid,) = _children(pid)
    return pid


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)[key]
