"""A login node of its own on this machine: users, /etc, /home, /tmp, network and processes of its own.

Everything that is started here lives in namespaces. The host's files, users and interfaces are never changed.
What runs inside ends with the process that made it, even if that is killed: then only files in /var/tmp are
left, and the next machine removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, Unpack

from space import ROOT_PATH, Space, UnavailableError, User, readable_files, script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from space import Command, Files, Options

CHECKOUT = Path(__file__).resolve().parents[2]
STATE_PREFIX = "chlaunch-test-"
USER_NAMES = ("alice", "bob")
FIRST_UID = 1001
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "hostname", "ip")

# Covered by empty file systems in each machine; what is elsewhere all share, as on a parallel file system.
PRIVATE = ("/run", "/var/spool", "/dev/shm", "/tmp")


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
        with readable_files():
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
        """Make the directory that holds the machine's /etc, /home and logs; remove those of killed ones."""
        check_host()
        _remove_stale_states()
        self.state = Path(tempfile.mkdtemp(prefix=STATE_PREFIX, dir="/var/tmp"))
        lock = self.state / "lock.new"
        self._lock = lock.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        lock.rename(self.state / "lock")  # appears locked, so that nobody takes this state for a stale one
        for name in ("log", "home", "reveal"):
            (self.state / name).mkdir()
        for path in self._reveal:
            path.mkdir(parents=True, exist_ok=True)
            if path.stat().st_mode & 0o005 != 0o005:
                raise UnavailableError(f"{path} is closed to other users: chmod -R go+rX {path}")
        for user in self.users:
            home = self.state / "home" / user.name
            home.mkdir(mode=0o700)
            os.chown(home, user.uid, user.uid)
        _make_etc(self.state / "etc", self.login.name, self.users)

    def start(self, then: Sequence[str] = ()) -> None:
        """Start the login node; its init also runs the shell lines `then`."""
        log = self.state / "log" / f"{self.login.name}.log"
        lines = [
            *self.reveal_sources(_hidden(self._reveal)),
            f"mount --bind {self.state}/etc /etc",
            f"mount --bind {self.state}/home /home",
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
            shutil.rmtree(self.state)  # still locked, lest another machine that starts now removes it too
            self._lock.close()
            self._lock = None

    def private_lines(self, hostname: str) -> list[str]:
        """Return shell lines that give a space its name and the file systems that no two machines share."""
        lines = [f"hostname {hostname}", "ip link set lo up"]
        lines += ["mount -t sysfs sysfs /sys"]  # that of the new network namespace
        if Path("/sys/fs/cgroup").is_dir():
            lines += ["mount -t cgroup2 cgroup2 /sys/fs/cgroup"]
        if Path("/dev/mqueue").is_dir():
            lines += ["mount -t mqueue mqueue /dev/mqueue"]
        for path in PRIVATE:
            mode = 1777 if path in ("/tmp", "/dev/shm") else 755
            lines += [f"mount -t tmpfs -o mode={mode} tmpfs {path}"]
        lines += ["mkdir -p /run/lock /run/user"]
        lines += [
            f"install -d -m 700 -o {user.uid} -g {user.uid} /run/user/{user.uid}" for user in self.users
        ]
        return lines

    def reveal_again(self) -> tuple[list[str], list[str]]:
        """Return lines before and after a node's `private_lines` that keep in sight what is revealed."""
        hidden = {path: top for path, top in _hidden(self._reveal).items() if top in PRIVATE}
        return self.reveal_sources(hidden), self.reveal_targets(hidden)

    def reveal_sources(self, hidden: Mapping[str, str]) -> list[str]:
        """Return lines that take hold of the hidden directories before they are covered."""
        stage = [self.state / "reveal" / str(number) for number in range(len(hidden))]
        for directory in stage:
            directory.mkdir(exist_ok=True)
        return [
            f"mount --rbind {shlex.quote(path)} {directory}"
            for path, directory in zip(hidden, stage, strict=True)
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

    def root(
        self, command: Command, *, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` on the login node as root."""
        return self.login.run(command, timeout=timeout, check=check, user="root", cwd="/")

    def home(self, user: str = "alice") -> Path:
        """Return a user's home as seen in the machine."""
        return Path("/home") / user

    def outside(self, path: str | os.PathLike[str]) -> Path:
        """Return where the host sees `path` of the login node, to read and write files there."""
        return Path(f"/proc/{self.login.init_pid}/root", os.fspath(path).lstrip("/"))


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


def _check_user_namespaces(login: Space) -> None:
    result = login.run(["unshare", "--user", "--map-root-user", "true"])
    if result.returncode:
        switches = ("kernel/unprivileged_userns_clone", "user/max_user_namespaces")
        found = [f"{name.replace('/', '.')}={_setting(name)}" for name in switches if _setting(name)]
        raise UnavailableError(
            "unprivileged users may not make user namespaces here"
            f" ({', '.join([result.stderr.strip(), *found])}); see sysctl(8)"
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
