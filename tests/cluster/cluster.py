#!/usr/bin/env python3
"""A real Slurm with several nodes on this one machine, in half a second; needs root and Slurm's programs.

``cluster.py [--nodes N] [--user NAME] -- COMMAND…`` runs COMMAND on the login node of a fresh cluster.
Each node is a set of namespaces with its own slurmd and munged; a bridge in the login node's network
namespace joins them. Nothing on the host is touched: not its network, its /etc or a Slurm that it may run.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self, Unpack

from machine import Machine, replace
from space import ROOT_PATH, START_SECONDS, MachineError, Space, UnavailableError, readable_files, script

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from space import Command, Files, Options

DAEMONS = ("munged", "slurmctld", "slurmd", "sinfo", "srun")
NETWORK = "10.77.0"
LOGIN_ADDRESS = f"{NETWORK}.254"
POLL_SECONDS = 0.03

# Nothing in here needs cgroups, accounting or a name server. The CPUs are a fiction that slurmd is told to
# believe, so that 128 tasks fit on a node; FORCE lets jobs share nodes.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={login}({login_address})
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
NodeName=DEFAULT CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=4000
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
"""


class Cluster:
    """A login node and nodes n1, n2, …; a context manager. Commands run on the login node by default."""

    def __init__(
        self,
        nodes: int = 2,
        cpus: int = 128,
        reveal: Iterable[Path] = (),
        conf: str = "",
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Plan a cluster on which users can read the checkout and the directories in `reveal`.

        conf: lines of slurm.conf, instead of those that have the same keys. files: by their names in
        /etc/slurm, on all nodes; one that begins with #! can be executed.
        """
        self.machine = Machine(reveal=reveal)
        self.node_names = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self._conf = conf
        self._files = dict(files or {})
        self._nodes = {name: Space(name, self.machine.users) for name in self.node_names}

    def __enter__(self) -> Self:
        """Start everything; return when Slurm says that all nodes are idle."""
        _check_slurm()
        with readable_files():
            self.machine.make_state()
            try:
                self._start()
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything."""
        for node in self._nodes.values():
            node.stop()
        self.machine.stop()

    def run(
        self,
        command: Command,
        *,
        node: str | None = None,
        timeout: float = 60,
        check: bool = False,
        **options: Unpack[Options],
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` on the login node or on `node`; see `Space.run`."""
        return self._space(node).run(command, timeout=timeout, check=check, **options)

    def popen(
        self,
        command: Command,
        *,
        node: str | None = None,
        stdin: Files = subprocess.DEVNULL,
        stdout: Files = subprocess.PIPE,
        stderr: Files = subprocess.PIPE,
        **options: Unpack[Options],
    ) -> subprocess.Popen[str]:
        """Start `command` on the login node or on `node`; see `Space.popen`."""
        return self._space(node).popen(command, stdin, stdout, stderr, **options)

    def root(
        self, node: str | None, command: Command, *, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as root on `node`, or on the login node if that is None."""
        return self._space(node).run(command, timeout=timeout, check=check, user="root", cwd="/")

    def home(self, user: str = "alice") -> Path:
        """Return a user's home, the same on all nodes."""
        return self.machine.home(user)

    def outside(self, path: str | os.PathLike[str]) -> Path:
        """Return where the host sees `path` of the login node."""
        return self.machine.outside(path)

    @property
    def logs(self) -> str:
        """What the daemons wrote."""
        files = sorted(self._log.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files)

    @property
    def _log(self) -> Path:
        return self.machine.state / "log"

    def _space(self, node: str | None) -> Space:
        return self.machine.login if node is None else self._nodes[node]

    def _address(self, name: str) -> str:
        return f"{NETWORK}.{1 + self.node_names.index(name)}"

    def _beside(self, name: str) -> list[str]:
        """Return the prefix that enters the login node, but the network namespace made for the node."""
        login = self.machine.login
        return login.enter(net=f"/proc/{login.init_pid}/root/run/netns/{name}")

    def _start(self) -> None:
        self._configure()
        self.machine.start([*self._network_lines(), *_munge_lines(self._log), *self._controller_lines()])
        for name, node in self._nodes.items():
            lines = script(self._node_lines(name))
            node.start(lines, self._log / f"{name}.log", inside=self._beside(name))
        for name, node in self._nodes.items():
            node.await_ready(self._log / f"{name}.log")
        self._await_idle()

    def _configure(self) -> None:
        """Write what the daemons read: /etc/slurm, /etc/munge and /etc/hosts, on all nodes the same."""
        etc = self.machine.state / "etc"
        for name in ("slurm", "munge"):
            shutil.rmtree(etc / name, ignore_errors=True)
            (etc / name).mkdir()
        conf = SLURM_CONF.format(
            login=self.machine.login.name,
            login_address=LOGIN_ADDRESS,
            log=self._log,
            cpus=self.cpus,
            nodes="\n".join(f"NodeName={name} NodeAddr={self._address(name)}" for name in self.node_names),
        )
        (etc / "slurm/slurm.conf").write_text(_instead(conf, self._conf))
        for name, text in self._files.items():
            (etc / "slurm" / name).write_text(text)
            (etc / "slurm" / name).chmod(0o755 if text.startswith("#!") else 0o644)
        (etc / "slurm/cgroup.conf").write_text(f"CgroupPlugin={_cgroup_plugin()}\n")
        (etc / "munge").chmod(0o700)
        key = etc / "munge/munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        hosts = {self.machine.login.name: LOGIN_ADDRESS} | {
            name: self._address(name) for name in self.node_names
        }
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in hosts.items())]
        replace(etc / "hosts", "\n".join(lines) + "\n")

    def _network_lines(self) -> list[str]:
        """Return lines for a bridge, and for each node a network namespace with one end of a wire to it."""
        commands = ["link add br0 type bridge", f"address add {LOGIN_ADDRESS}/24 dev br0", "link set br0 up"]
        for name in self.node_names:
            commands += [
                f"netns add {name}",
                f"link add {name} master br0 up type veth peer name eth0 netns {name}",
            ]
        return _ip_lines(commands)

    def _controller_lines(self) -> list[str]:
        return [f"slurmctld -D -c >{self._log}/slurmctld.out 2>&1 &"]

    def _node_lines(self, name: str) -> list[str]:
        hostname = self.machine.state / f"hostname.{name}"
        hostname.write_text(f"{name}\n")
        before, after = self.machine.reveal_again()
        return [
            *before,
            f"mount --bind {hostname} /etc/hostname",
            *self.machine.private_lines(name),
            *after,
            *_ip_lines([f"address add {self._address(name)}/24 dev eth0", "link set eth0 up"]),
            *_munge_lines(self._log, name),
            f"slurmd -D -N {name} >{self._log}/slurmd.{name}.out 2>&1 &",
        ]

    def _await_idle(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            idle = self.root(None, ["sinfo", "--noheader", "--states=idle", "--format=%D"], check=False)
            if idle.stdout.split() == [str(len(self.node_names))]:
                return
            time.sleep(POLL_SECONDS)
        raise MachineError(f"Slurm's nodes did not come up:\n{self.logs}")


def _instead(conf: str, more: str) -> str:
    """Return slurm.conf with more lines, without the old ones of the same keys: Slurm warns of a second."""
    keys = {line.partition("=")[0].lower() for line in more.splitlines()}
    kept = [line for line in conf.splitlines() if line.partition("=")[0].lower() not in keys]
    return "\n".join([*kept, more.rstrip(), ""])


def _ip_lines(commands: list[str]) -> list[str]:
    return ["ip -batch - <<END", *commands, "END"]


def _munge_lines(log: Path, name: str = "login") -> list[str]:
    # One for each node: on a shared one, the nodes would find each other's credentials replayed.
    return [
        "mkdir -p /run/munge",
        f"munged --pid-file=/run/munge/pid --seed-file=/run/munge/seed --log-file={log}/munged.{name}.log",
    ]


def _check_slurm() -> None:
    missing = [daemon for daemon in DAEMONS if not shutil.which(daemon, path=ROOT_PATH)]
    if missing:
        raise UnavailableError(f"needs {', '.join(missing)}: run tests/setup.sh cluster")


def _cgroup_plugin() -> str:
    """Return the plugin that asks least of the host: left alone, slurmd dies where cgroups are hybrid."""
    version = subprocess.run(["slurmd", "-V"], check=True, capture_output=True, text=True).stdout.split()[-1]
    year, month = (int(part) for part in version.split(".")[:2])
    return "disabled" if (year, month) >= (23, 11) else "cgroup/v1"


def main() -> int:
    """Run a command on a cluster of its own."""
    parser = argparse.ArgumentParser(description="Run COMMAND on the login node of a fresh Slurm cluster.")
    parser.add_argument("--nodes", type=int, default=2, metavar="N")
    parser.add_argument("--user", default="alice", choices=("alice", "bob", "root"))
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    try:
        with Cluster(arguments.nodes) as cluster:
            inherited = {"stdin": None, "stdout": None, "stderr": None}
            return cluster.popen(arguments.command, user=arguments.user, **inherited).wait()
    except (MachineError, UnavailableError) as error:
        sys.exit(f"cluster.py: {error}")


if __name__ == "__main__":
    sys.exit(main())
