"""A login node of its own on this machine: private users, /etc, /home, /tmp, network and processes, nothing installed.

Everything that is started here lives in namespaces. The host's files, users and interfaces are never written, and
what runs inside ends with the process that made it, even if that is killed: then only files in /var/tmp are left, and
the next machine removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Self, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Command = str | Sequence[str | os.PathLike[str]]  # a str is for the shell
    Files = int | IO[str] | None

CHECKOUT = Path(__file__).resolve().parents[2]
STATE_PREFIX = "chlaunch-test-"
START_SECONDS = 30
USER_NAMES = ("alice", "bob")
FIRST_UID = 1001
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "hostname", "ip")

# Covered by empty file systems in each machine; all else is shared with the host, as by a parallel file system.
PRIVATE = ("/run", "/var/spool", "/dev/shm", "/tmp")


class UnavailableError(Exception):
    """This host can't run what was asked for; says what it lacks and what to do."""


class MachineError(Exception):
    """Something broke while starting; shows the log."""


class User(NamedTuple):
    """Somebody who may log in."""

    name: str
    uid: int
    home: str


class Options(TypedDict, total=False):
    """How a command is run: as whom, with which variables beyond a login's, and where (home if not said)."""

    user: str
    env: Mapping[str, str | os.PathLike[str]] | None
    cwd: str | os.PathLike[str] | None


class Space:
    """Mount, UTS, network, IPC and PID namespaces with an init of their own: one machine to those inside."""

    def __init__(self, name: str, users: Iterable[User]) -> None:
        """Name the space; `start` makes it."""
        self.name = name
        self.init_pid = 0
        self._users = {user.name: user for user in users}
        self._process: subprocess.Popen[str] | None = None

    def start(self, script: str, log: Path, *, inside: Sequence[str] = ()) -> None:
        """Make the namespaces and run `script` as their init; return when it has said that it is ready.

        `inside` is a command prefix that enters another space first. The script ends in `INIT`.
        """
        unshare = "unshare --mount --uts --net --ipc --pid --fork --kill-child --mount-proc --propagation private"
        if inside:
            unshare = unshare.replace("--net ", "")  # that of the prefix
        script_file = log.with_suffix(".sh")
        script_file.write_text(script)
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                # The death signal reaches what is below by way of --kill-child.
                ["setpriv", "--pdeathsig=KILL", *inside, *unshare.split(), "sh", "-eu", script_file],
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
        self.init_pid = _last_descendant(self._process.pid)

    def stop(self) -> None:
        """End everything in the space; return when it is gone."""
        if self._process is None:
            return
        if self.init_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()  # unshare waits for the init, and that for all processes of its namespace
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def enter(self, *, net: str | None = None) -> list[str]:
        """Return the prefix of a command that runs it in here, as root; `net` is another network namespace."""
        network = f"--net={net}" if net else "--net"
        return ["nsenter", f"--target={self.init_pid}", "--mount", "--uts", network, "--ipc", "--pid", "--"]

    def popen(
        self, command: Command, stdin: Files, stdout: Files, stderr: Files, **options: Unpack[Options]
    ) -> subprocess.Popen[str]:
        """Start `command` in here as a user (root is one) with the environment of a fresh login."""
        name = options.get("user", "alice")
        user = self._users.get(name) or User("root", 0, "/root")
        variables = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "LANG": "C.UTF-8"}
        variables["PATH"] = USER_PATH if user.uid else ROOT_PATH
        variables |= {key: os.fspath(value) for key, value in (options.get("env") or {}).items()}
        directory = os.fspath(options.get("cwd") or user.home)
        identity = [f"--reuid={user.uid}", f"--regid={user.uid}", "--init-groups"]
        return subprocess.Popen(
            [
                *self.enter(),
                *("setpriv", *identity, *(["--inh-caps=-all"] if user.uid else []), "--"),
                *("env", "-i", "-C", directory, *(f"{key}={value}" for key, value in variables.items())),
                *(["sh", "-c", command] if isinstance(command, str) else command),
            ],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd="/",
            env={"PATH": ROOT_PATH},
            text=True,
        )

    def run(
        self, command: Command, *, timeout: float = 60, check: bool = False, **options: Unpack[Options]
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` to its end like `popen`, reading nothing, and return what it wrote and its exit code."""
        process = self.popen(command, subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE, **options)
        with process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as expired:
                kill_tree(process.pid)
                expired.output, expired.stderr = process.communicate()
                expired.add_note(f"stdout:\n{expired.output}\nstderr:\n{expired.stderr}")
                raise
            except BaseException:
                kill_tree(process.pid)
                raise
        result = subprocess.CompletedProcess(command, process.returncode, output, errors)
        if check and result.returncode:
            failure = subprocess.CalledProcessError(result.returncode, command, output, errors)
            failure.add_note(f"stdout:\n{output}\nstderr:\n{errors}")
            raise failure
        return result


class Machine:
    """The login node; a context manager. Commands run in it as alice, bob or root."""

    def __init__(self, hostname: str = "login", reveal: Iterable[Path] = ()) -> None:
        """Plan a machine on which users can read the checkout and the directories in `reveal`."""
        self.state = Path()
        self.users = _free_users()
        self.login = Space(hostname, self.users)
        self._reveal = (CHECKOUT, *reveal)
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        check_host()
        self.make_state()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and everything in it."""
        self.stop()

    def make_state(self) -> None:
        """Make the directory that holds the machine's /etc, /home and logs, and remove those of killed ones."""
        _remove_stale_states()
        self.state = Path(tempfile.mkdtemp(prefix=STATE_PREFIX, dir="/var/tmp"))
        lock = self.state / "lock.new"
        self._lock = lock.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        lock.rename(self.state / "lock")  # appears locked, so that nobody takes this state for a stale one
        for name in ("log", "home", "reveal"):
            (self.state / name).mkdir()
        for user in self.users:
            home = self.state / "home" / user.name
            home.mkdir(mode=0o700)
            os.chown(home, user.uid, user.uid)
        _make_etc(self.state / "etc", self.login.name, self.users)

    def start(self, then: Sequence[str] = ()) -> None:
        """Start the login node; its init also runs the shell lines `then`."""
        log = self.state / "log" / f"{self.login.name}.log"
        cgroups = Path("/sys/fs/cgroup").is_dir()
        lines = [
            *self.reveal_sources(_hidden(self._reveal)),
            f"mount --bind {self.state}/etc /etc",
            f"mount --bind {self.state}/home /home",
            "mount -t sysfs sysfs /sys",  # that of the new network namespace
            *(["mount -t cgroup2 cgroup2 /sys/fs/cgroup"] if cgroups else []),
            *self.private_lines(self.login.name),
            *fuse_lines(),
            *self.reveal_targets(_hidden(self._reveal)),
            *then,
        ]
        self.login.start(script(lines), log)
        self.login.await_ready(log)
        _check_user_namespaces(self.login)

    def stop(self) -> None:
        """Stop everything and remove the state."""
        self.login.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            shutil.rmtree(self.state)

    def private_lines(self, hostname: str) -> list[str]:
        """Return shell lines that give a space its name and the file systems that no two machines share."""
        lines = [f"hostname {hostname}", "ip link set lo up"]
        if Path("/dev/mqueue").is_dir():
            lines += ["mount -t mqueue mqueue /dev/mqueue"]
        for path in PRIVATE:
            mode = 1777 if path in ("/tmp", "/dev/shm") else 755
            lines += [f"mount -t tmpfs -o mode={mode} tmpfs {path}"]
        lines += ["mkdir -p /run/lock /run/user"]
        lines += [f"install -d -m 700 -o {user.uid} -g {user.uid} /run/user/{user.uid}" for user in self.users]
        return lines

    def reveal_again(self) -> tuple[list[str], list[str]]:
        """Return the lines before and after a node's `private_lines` that keep revealed directories in sight."""
        hidden = {path: top for path, top in _hidden(self._reveal).items() if top in PRIVATE}
        return self.reveal_sources(hidden), self.reveal_targets(hidden)

    def reveal_sources(self, hidden: Mapping[str, str]) -> list[str]:
        """Return lines that take hold of the hidden directories before they are covered."""
        stage = [self.state / "reveal" / str(number) for number in range(len(hidden))]
        for directory in stage:
            directory.mkdir(exist_ok=True)
        return [
            f"mount --rbind {shlex.quote(path)} {directory}" for path, directory in zip(hidden, stage, strict=True)
        ]

    def reveal_targets(self, hidden: Mapping[str, str]) -> list[str]:
        """Return lines that put them back at their paths, below directories that anybody can search."""
        covers = sorted({top for top in hidden.values() if top not in (*PRIVATE, "/home")})
        lines = [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(top)}" for top in covers]
        for number, path in enumerate(hidden):
            lines += [f"mkdir -p {shlex.quote(path)}"]
            lines += [f"mount --move {self.state}/reveal/{number} {shlex.quote(path)}"]
        return lines

    def run(
        self, command: Command, *, timeout: float = 60, check: bool = False, **options: Unpack[Options]
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` on the login node; see `Space.run`."""
        return self.login.run(command, timeout=timeout, check=check, **options)

    def popen(
        self,
        command: Command,
        *,
        stdin: Files = subprocess.DEVNULL,
        stdout: Files = subprocess.PIPE,
        stderr: Files = subprocess.PIPE,
        **options: Unpack[Options],
    ) -> subprocess.Popen[str]:
        """Start `command` on the login node; see `Space.popen`."""
        return self.login.popen(command, stdin, stdout, stderr, **options)

    def root(self, command: Command, *, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `command` on the login node as root."""
        return self.login.run(command, timeout=timeout, check=check, user="root", cwd="/")

    def home(self, user: str = "alice") -> Path:
        """Return a user's home as seen in the machine."""
        return Path("/home") / user

    def outside(self, path: str | os.PathLike[str]) -> Path:
        """Return where the host sees `path` of the login node: for tests that read and write files there."""
        return Path(f"/proc/{self.login.init_pid}/root", os.fspath(path).lstrip("/"))


def script(lines: Sequence[str]) -> str:
    """Return an init script: the lines, then ready for commands. Orphans reap themselves."""
    return "\n".join(["umask 022", "cd /", *lines, "trap '' CHLD", "echo ready", "exec sleep infinity", ""])


def fuse_lines() -> list[str]:
    """Return lines for a /dev/fuse that users may open, as it is where udev looks after /dev."""
    if not Path("/dev/fuse").exists():
        return []
    return ["mknod -m 666 /run/fuse c 10 229", "mount --bind /run/fuse /dev/fuse"]


def check_host() -> None:
    """Raise UnavailableError unless this host lets us make machines."""
    if os.geteuid() != 0:
        raise UnavailableError("needs root, to make namespaces with several users")
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=ROOT_PATH)]
    if missing:
        raise UnavailableError(f"needs {', '.join(missing)}: run tests/setup.sh")
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]
    result = subprocess.run(probe, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UnavailableError(f"this host allows no namespaces: {result.stderr.strip()}")


def kill_tree(pid: int) -> None:
    """Kill a process and all that descend from it."""
    for child in _children(pid):
        kill_tree(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _last_descendant(pid: int) -> int:
    """Return the init of the space that `pid` made: down the chain setpriv, nsenter, unshare, sh."""
    while children := _children(pid):
        parent, pid = pid, children[0]
        if Path(f"/proc/{pid}/ns/pid").readlink() != Path(f"/proc/{parent}/ns/pid").readlink():
            entered = pid
    return entered


def _check_user_namespaces(login: Space) -> None:
    result = login.run(["unshare", "--user", "--map-root-user", "true"])
    if result.returncode:
        switches = ("kernel/unprivileged_userns_clone", "user/max_user_namespaces")
        found = [f"{name.replace('/', '.')}={_setting(name)}" for name in switches if _setting(name)]
        raise UnavailableError(
            f"unprivileged users may not make user namespaces here ({result.stderr.strip()}; {', '.join(found)})"
        )


def _setting(name: str) -> str:
    path = Path("/proc/sys", name)
    return path.read_text().strip() if path.exists() else ""


def _free_users() -> list[User]:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    free = (uid for uid in range(FIRST_UID, 60000) if uid not in taken)
    return [User(name, next(free), f"/home/{name}") for name in USER_NAMES]


def _make_etc(etc: Path, hostname: str, users: Iterable[User]) -> None:
    """Copy the host's /etc and make it that of a machine with these users and no name server."""
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    for user in users:
        with (etc / "passwd").open("a") as file:
            file.write(f"{user.name}:x:{user.uid}:{user.uid}::{user.home}:/bin/sh\n")
        with (etc / "group").open("a") as file:
            file.write(f"{user.name}:x:{user.uid}:\n")
    replace(etc / "hostname", f"{hostname}\n")
    replace(etc / "hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n")
    replace(etc / "resolv.conf", "")


def replace(path: Path, text: str) -> None:
    """Write a file that may be a link elsewhere now."""
    path.unlink(missing_ok=True)
    path.write_text(text)


def _hidden(paths: Iterable[Path]) -> dict[str, str]:
    """Return each path that a user could not reach, with the topmost directory that is in the way."""
    hidden = {}
    for path in paths:
        for parent in reversed(path.parents):
            if str(parent) in (*PRIVATE, "/home") or not parent.stat().st_mode & 0o001:
                hidden[str(path)] = str(parent)
                break
    return hidden


def _remove_stale_states() -> None:
    """Remove the state of machines whose maker was killed: those whose lock nobody holds."""
    for state in Path("/var/tmp").glob(f"{STATE_PREFIX}*"):
        with contextlib.suppress(OSError):
            if state.is_symlink() or state.stat().st_uid != 0:
                continue  # anybody can make files in /var/tmp
            with (state / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(state)
