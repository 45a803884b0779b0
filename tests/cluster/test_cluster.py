"""The cluster that other tests stand on: is it one, and does it leave the host alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cluster import Cluster
from machine import STATE_PREFIX, Machine
from space import finish

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER_PY = Path(__file__).with_name("cluster.py")
GONE_SECONDS = 10


def test_nodes_are_idle(cluster: Cluster) -> None:
    listing = cluster.run(["sinfo", "--noheader", "--Node", "--format=%N %t %c"], check=True)
    assert listing.stdout.split("\n")[:-1] == ["n1 idle 128", "n2 idle 128"]


def test_a_job_has_a_task_on_each_node(cluster: Cluster) -> None:
    names = cluster.run("hostname; srun -N2 --ntasks-per-node=1 hostname", check=True)
    assert sorted(names.stdout.split()) == ["login", "n1", "n2"]


def test_a_job_is_the_users(cluster: Cluster) -> None:
    job = cluster.run("srun sh -c 'id -un; id -gn; echo $HOME; pwd'", check=True)
    assert job.stdout.split() == ["alice", "alice", "/home/alice", "/home/alice"]


def test_the_environment_is_that_of_a_login(cluster: Cluster) -> None:
    variables = cluster.run(["env"], env={"ADDED": "1"}, check=True).stdout.splitlines()
    names = {line.partition("=")[0] for line in variables}
    assert names == {"HOME", "USER", "LOGNAME", "PATH", "LANG", "ADDED"}


@pytest.mark.pmix
def test_slurm_speaks_pmix(cluster: Cluster) -> None:
    assert "pmix" in cluster.run(["srun", "--mpi=list"], check=True).stdout.split()
    assert "PMIX_RANK=0" in cluster.run("srun --mpi=pmix env", check=True).stdout.splitlines()


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm", "/run/user/{uid}"])
def test_node_local_directories_are_private(cluster: Cluster, directory: str) -> None:
    uid = cluster.run(["id", "-u"], check=True).stdout.strip()
    file = f"{directory.format(uid=uid)}/test-cluster"
    cluster.run(["touch", file], node="n1", check=True)
    assert cluster.run(["test", "-e", file], node="n1").returncode == 0
    assert cluster.run(["test", "-e", file], node="n2").returncode == 1
    assert cluster.run(["test", "-e", file]).returncode == 1
    assert not Path(file).exists()


def test_home_is_shared_by_the_nodes(cluster: Cluster) -> None:
    cluster.run("echo hello >~/shared", node="n1", check=True)
    assert cluster.run("cat ~/shared", node="n2", check=True).stdout == "hello\n"
    assert not Path("/home/alice/shared").exists()


def test_users_are_kept_apart(cluster: Cluster) -> None:
    assert cluster.run("ls ~alice", user="bob").returncode != 0
    jobs = [
        cluster.popen(["srun", "-w", "n1", "sh", "-c", "id -un; hostname"], user=u) for u in ("alice", "bob")
    ]
    assert [finish(job).stdout.split() for job in jobs] == [["alice", "n1"], ["bob", "n1"]]


def test_exit_codes_are_real(cluster: Cluster) -> None:
    assert cluster.run("exit 7").returncode == 7
    assert cluster.run("kill -9 $$").returncode == -signal.SIGKILL
    assert cluster.run(["srun", "sh", "-c", "exit 7"], node="n2").returncode == 7
    with pytest.raises(subprocess.CalledProcessError):
        cluster.run("exit 1", check=True)
    with pytest.raises(KeyError):
        cluster.run("true", user="alcie")


def test_a_timeout_ends_the_command(machine: Machine) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        machine.run("sleep 98765 & sleep 98765", timeout=0.5)
    assert machine.run("ps -eo args | grep '[s]leep 98765'").returncode == 1


def test_nodes_see_their_own_processes_and_interfaces(cluster: Cluster) -> None:
    processes = cluster.run(["ps", "-eo", "comm="], node="n1", check=True).stdout.split()
    assert "slurmd" in processes
    assert "slurmctld" not in processes
    assert cluster.run(["ls", "/sys/class/net"], node="n1", check=True).stdout.split() == ["eth0", "lo"]


def test_orphans_are_reaped(machine: Machine) -> None:
    machine.run("(cat </dev/null &)", check=True)
    _await(lambda: "cat" not in machine.run(["ps", "-eo", "comm="], check=True).stdout.split())


@pytest.mark.usefixtures("cluster")  # the host can run one
def test_hidden_directories_are_revealed(tmp_path: Path) -> None:
    hidden = tmp_path / "closed" / "open"
    hidden.mkdir(parents=True)
    (hidden / "file").write_text("seen\n")
    hidden.parent.chmod(0o700)
    with Cluster(1, reveal=[hidden]) as cluster:
        for node in (None, "n1"):
            assert cluster.run(["cat", hidden / "file"], node=node, check=True).stdout == "seen\n"
            assert cluster.run(["touch", hidden / "no"], node=node).returncode != 0


@pytest.mark.usefixtures("cluster")  # the host can run one
def test_nothing_is_left_after_stopping(clean_host: Callable[[], None]) -> None:
    with Cluster(2) as cluster:
        state = cluster.machine.state
        namespaces = _namespaces(
            cluster.run("srun -N2 readlink /proc/self/ns/pid; readlink /proc/self/ns/pid")
        )
        job = cluster.popen(["srun", "-N2", "sleep", "infinity"])
        assert _members(namespaces)
    assert not _members(namespaces)
    assert not state.exists()
    assert finish(job, GONE_SECONDS).returncode != 0
    clean_host()


@pytest.mark.usefixtures("cluster")  # the host can run one
def test_nothing_is_left_after_killing_the_maker(clean_host: Callable[[], None]) -> None:
    payload = "srun -N2 readlink /proc/self/ns/pid; readlink /proc/self/ns/pid; echo; srun -N2 sleep infinity"
    command = [sys.executable, str(CLUSTER_PY), "--", "sh", "-c", payload]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        namespaces = {line.strip() for line in takewhile(str.strip, maker.stdout)}
        assert len(namespaces) == 3
        assert _members(namespaces)
        maker.kill()
    _await(lambda: not _members(namespaces))
    clean_host()
    with Machine() as machine:  # removes the files that nobody was left to remove
        unlocked = [state for state in _states() if state != machine.state and not _is_locked(state)]
        assert not unlocked


@pytest.fixture
def clean_host(machine: Machine) -> Callable[[], None]:
    """Return a function that compares the host's mounts, interfaces and users with what they are now."""
    assert machine  # it is started before, and where it can't be these tests are skipped

    def seen() -> list[str]:
        links = subprocess.run(["ip", "-brief", "link"], check=True, capture_output=True, text=True).stdout
        mounts = [line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        files = [Path("/etc", name) for name in ("passwd", "group", "hosts", "hostname")]
        texts = [file.read_text() for file in files if file.exists()]
        return [links, *sorted(mounts), *texts, str(os.uname()), *sorted(map(str, Path("/etc").iterdir()))]

    before = seen()

    def compare() -> None:
        assert seen() == before

    return compare


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _namespaces(result: subprocess.CompletedProcess[str]) -> set[str]:
    return set(result.stdout.split())


def _members(namespaces: set[str]) -> list[int]:
    """Return the processes of these PID namespaces."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _pid_namespace(path) in namespaces]


def _pid_namespace(process: Path) -> str | None:
    try:
        return str((process / "ns/pid").readlink())
    except OSError:
        return None


def _states() -> list[Path]:
    return list(Path("/var/tmp").glob(f"{STATE_PREFIX}*"))


def _is_locked(state: Path) -> bool:
    return subprocess.run(["flock", "--nonblock", state / "lock", "true"], check=False).returncode != 0
