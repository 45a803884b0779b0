"""Image files: served by a process that nobody waits for, for as long as somebody is in the container."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime import Runtime

KILLED = 128 + signal.SIGKILL
DIED = "the image's file server died, the ranks of this image on this node can't go on"


@pytest.fixture(autouse=True)
def nothing_stays(runtime: Runtime) -> Iterator[None]:
    """Check after each test that no server and no keeper is left."""
    yield
    try:
        runtime.await_no_servers()
    except AssertionError:  # one failure is enough: the next test begins with none
        runtime.machine.run("pkill -9 -f '^sleep 100$'; pkill -9 ch-run; pkill -9 -f '^squashfuse_ll'")
        raise


def await_that(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail if it does not within seconds."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(condition)


def await_servers(runtime: Runtime, count: int) -> list[int]:
    """Wait for so many servers and keepers, return their PIDs."""
    await_that(lambda: len(runtime.servers()) == count)
    return runtime.servers()


def server_of(runtime: Runtime) -> int:
    """Return the PID of the only server, once it and its keeper run."""
    await_servers(runtime, 2)
    return int(runtime.machine.run("pgrep -f '^squashfuse_ll'").stdout)


def await_sleep(runtime: Runtime, count: int = 1) -> None:
    """Wait until so many ranks have become their command, sleep."""
    await_that(lambda: len(runtime.machine.run("pgrep -f '^sleep 100$'").stdout.split()) == count)


def in_image(squashfs: str, script: str, options: str = "") -> str:
    """Return the shell line that runs the script in the image."""
    return f"$CH_RUN {options} {squashfs} -- sh -c '{script}'"


def test_same_files(runtime: Runtime, squashfs: str) -> None:
    script = "find /usr ! -type d -exec stat -c '%N %a %s' {} + | sort; stat -c '%a %F' / /usr; md5sum /usr/bin/busybox"
    of_file = runtime(squashfs, "--", "sh", "-c", script)
    of_directory = runtime(runtime.image, "--", "sh", "-c", script)
    assert (of_file.returncode, of_file.stderr) == (0, "")
    assert of_file.stdout == of_directory.stdout
    assert of_file.stdout.count("\n") > 100


@pytest.mark.parametrize("ids", [(), ("--uid=0", "--gid=0"), ("--uid=77", "--gid=88")])
@pytest.mark.parametrize("owner", ["", "-all-root", "-force-uid 1234 -force-gid 1234"])
def test_files_are_the_users(runtime: Runtime, ids: tuple[str, ...], owner: str) -> None:
    image = runtime.squash("owned.sqfs", options=owner)
    script = "id -u; id -g; stat -c %u / /usr /usr/bin/busybox; stat -c %g / /usr /usr/bin/busybox"
    uid, gid, *found = runtime(*ids, image, "--", "sh", "-c", script).stdout.split()
    assert found == [uid] * 3 + [gid] * 3


SMALL_DEV = """
mkdir -p /tmp/dev
for name in null fuse; do touch /tmp/dev/$name; mount --bind /dev/$name /tmp/dev/$name; done
mount --rbind /tmp/dev /dev
test ! -e /dev/fd
"""


def test_in_a_small_dev(runtime: Runtime, squashfs: str) -> None:
    """Without udev, or in another container, there is no /dev/fd."""
    result = runtime.shell(
        f"exec unshare --user --map-root-user --mount sh -euc '{SMALL_DEV} exec $CH_RUN {squashfs} -- echo fine'"
    )
    assert (result.stdout, result.stderr) == ("fine\n", "")


def test_write_is_refused(runtime: Runtime, squashfs: str) -> None:
    result = runtime("-w", squashfs, "--", "true")
    assert result.returncode == 31
    assert "[CH-0016]" in result.stderr
    assert "Read-only file system" in runtime(squashfs, "--", "touch", "/etc/x").stderr


def test_missing_mount_points(runtime: Runtime, squashfs: str) -> None:
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    binds = ("-b", "data:/gpfs/deep", "-b", "data/file:/opt/a/b")
    result = runtime(
        *binds, squashfs, "--", "sh", "-c", "cat /gpfs/deep/file /opt/a/b; cut -d' ' -f5 /proc/self/mountinfo"
    )
    content, again, *mounts = result.stdout.splitlines()
    assert (content, again) == ("content", "content")
    assert mounts.count("/") == 1  # neither the host's root directory nor the bare image is left below


class TestLifetime:
    """When server and keeper come and go."""

    def test_one_server_for_all_who_join(self, runtime: Runtime, squashfs: str) -> None:
        rank = in_image(squashfs, "sleep 1; readlink /proc/self/ns/mnt", "--join-tag=many")
        ranks = runtime.machine.popen(
            ["bash", "-c", f"for i in $(seq 8); do {rank} & done; wait"], env={"CH_RUN": runtime.ch_run}
        )
        await_servers(runtime, 2)
        output, errors = ranks.communicate(timeout=60)
        assert (len(output.split()), len(set(output.split())), errors) == (8, 1, "")

    def test_first_rank_leaves_first(self, runtime: Runtime, squashfs: str) -> None:
        script = (
            f"{in_image(squashfs, 'sleep 0.3', '--join-tag=late')} & sleep 0.15;"
            f"{in_image(squashfs, 'sleep 0.6; cat /usr/bin/busybox | wc -c', '--join-tag=late')}; wait"
        )
        result = runtime.shell(script)
        assert (int(result.stdout) > 100_000, result.stderr) == (True, "")

    def test_what_a_rank_leaves_behind_keeps_its_files(self, runtime: Runtime, squashfs: str) -> None:
        later = "(sleep 0.5; find /usr -type l | wc -l >/tmp/later) >/dev/null 2>&1 &"
        result = runtime.shell(f"{in_image(squashfs, later)}; echo $?")
        assert result.stdout == "0\n"
        await_servers(runtime, 2)
        runtime.await_no_servers()
        assert int(runtime.machine.run("cat /tmp/later; rm /tmp/later").stdout) > 100

    def test_output_closes_with_the_rank(self, runtime: Runtime, squashfs: str) -> None:
        """A keeper that held standard output would keep srun and mpirun waiting for its end."""
        script = in_image(squashfs, "(sleep 2 >/dev/null 2>&1 <&1) & echo done")
        result = runtime.shell(
            f"start=$(date +%s%N); {script} | cat; echo $((($(date +%s%N) - start) / 1000000))"
        )
        word, milliseconds = result.stdout.split()
        assert (word, int(milliseconds) < 1500) == ("done", True)
        assert runtime.servers()

    def test_it_holds_nothing_of_the_rank(self, runtime: Runtime, squashfs: str) -> None:
        script = f"exec 7</etc/hosts; cd /tmp; {in_image(squashfs, 'sleep 1')}"
        rank = runtime.machine.popen(["bash", "-c", script], env={"CH_RUN": runtime.ch_run})
        server = server_of(runtime)
        for pid in await_servers(runtime, 2):
            files = runtime.machine.root(f"readlink /proc/{pid}/cwd /proc/{pid}/fd/*").stdout.split()
            assert files[:4] == ["/", "/dev/null", "/dev/null"] + (
                [files[3]] if pid == server else ["/dev/null"]
            )
            assert not [file for file in files if "hosts" in file or "pipe" in file]
        environment = runtime.machine.root(f"tr '\\0' '\\n' </proc/{server}/environ").stdout
        assert {line.split("_")[0] for line in environment.split()} == {"MALLOC"}
        rank.communicate(timeout=60)

    def test_it_holds_the_mount_for_as_long_as_its_maker_lives(self, runtime: Runtime, squashfs: str) -> None:
        """The command must not take the file system apart; who is there after it must not depend on the keeper."""
        script = in_image(squashfs, "sleep 2 >/dev/null 2>&1 & read end")
        rank = runtime.machine.popen(
            ["bash", "-c", f"exec {script}"], stdin=subprocess.PIPE, env={"CH_RUN": runtime.ch_run}
        )
        server = server_of(runtime)
        (keeper,) = set(runtime.servers()) - {server}
        files = f"readlink /proc/{keeper}/fd/*"
        await_that(lambda: "/" in runtime.machine.root(files).stdout.split())
        rank.communicate("\n", timeout=60)
        await_that(lambda: "/" not in runtime.machine.root(files).stdout.split())
        assert sorted(runtime.servers()) == sorted([server, keeper])

    def test_it_may_use_all_processors(self, runtime: Runtime, squashfs: str) -> None:
        rank = runtime.machine.popen(["taskset", "-c", "0", runtime.ch_run, squashfs, "--", "sleep", "1"])
        status = "grep Cpus_allowed_list /proc/{}/status"
        everywhere = runtime.machine.run(status.format("self")).stdout
        assert runtime.machine.run(status.format(server_of(runtime))).stdout == everywhere
        rank.communicate(timeout=60)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_signals_for_the_ranks_do_not_end_it(
        self, runtime: Runtime, squashfs: str, number: signal.Signals
    ) -> None:
        """Slurm sends the whole step SIGTERM some time before SIGKILL; ranks may still save their work."""
        rank = runtime.machine.popen(
            [runtime.ch_run, squashfs, "--", "sh", "-c", "sleep 0.7; find /usr -type l | wc -l"]
        )
        for pid in await_servers(runtime, 2):
            runtime.machine.run(f"kill -{number.value} {pid}", check=True)
        output, errors = rank.communicate(timeout=60)
        assert (int(output) > 100, errors) == (True, "")

    def test_generations_do_not_end_each_other(self, runtime: Runtime, squashfs: str) -> None:
        """Ranks that come when the last has just gone make a new container under the same name."""
        for _ in range(5):
            result = runtime.shell(f"$TOOLS/storm 64 $CH_RUN --join {squashfs} -- /bin/true")
            assert (result.returncode, result.stderr) == (0, "")

    def test_killed_ranks_leave_nothing(self, runtime: Runtime, squashfs: str) -> None:
        mounts = runtime.machine.run("cat /proc/self/mounts").stdout
        rank = runtime.machine.popen([runtime.ch_run, "-j", squashfs, "--", "sleep", "100"])
        await_servers(runtime, 2)
        await_sleep(runtime)
        runtime.machine.run("pkill -9 -f '^sleep 100$'", check=True)
        rank.communicate(timeout=60)
        runtime.await_no_servers()
        assert runtime.machine.run("cat /proc/self/mounts").stdout == mounts

    def test_without_its_keeper_the_server_leaves_all_the_same(self, runtime: Runtime, squashfs: str) -> None:
        rank = runtime.machine.popen([runtime.ch_run, squashfs, "--", "sh", "-c", "sleep 0.5; ls /usr"])
        server_of(runtime)
        runtime.machine.run("pkill -9 -x ch-run-keeper", check=True)
        assert rank.communicate(timeout=60) == ("bin\n", "")


class TestDeath:
    """A server that dies ends its ranks, with a word."""

    def test_alone(self, runtime: Runtime, squashfs: str) -> None:
        rank = runtime.machine.popen([runtime.ch_run, squashfs, "--", "sleep", "100"])
        await_sleep(runtime)
        runtime.machine.run(f"kill -9 {server_of(runtime)}", check=True)
        _, errors = rank.communicate(timeout=10)
        assert rank.returncode in (KILLED, -signal.SIGKILL)
        assert f"error: {DIED}: {squashfs}: squashfuse_ll was killed by signal 9 (keeper.c:" in errors
        assert "[CH-0075]" in errors

    def test_joined_ranks_hear_it_once(self, runtime: Runtime, squashfs: str) -> None:
        rank = in_image(squashfs, "sleep 100", "--join-tag=dying")
        script = f"for i in 1 2 3; do {rank} & done; for job in $(jobs -p); do wait $job; echo $?; done"
        ranks = runtime.machine.popen(["bash", "-c", script], env={"CH_RUN": runtime.ch_run})
        server = server_of(runtime)
        await_sleep(runtime, 3)
        runtime.machine.run(f"kill -9 {server}", check=True)
        output, errors = ranks.communicate(timeout=10)
        assert output.split() == [str(KILLED)] * 3
        assert errors.count(DIED) == 1

    def test_ranks_of_other_images_live_on(self, runtime: Runtime, squashfs: str) -> None:
        other = runtime.machine.popen(
            [runtime.ch_run, "--join-tag=two", runtime.image, "--", "sh", "-c", "sleep 1; echo alive"]
        )
        rank = runtime.machine.popen([runtime.ch_run, "--join-tag=two", squashfs, "--", "sleep", "100"])
        await_sleep(runtime)
        runtime.machine.run(f"kill -9 {server_of(runtime)}", check=True)
        assert DIED in rank.communicate(timeout=10)[1]
        assert other.communicate(timeout=10) == ("alive\n", "")

    def test_before_the_command_has_begun(self, runtime: Runtime, squashfs: str) -> None:
        """The rank is stopped at its last look at its container; its server dies; it goes on."""
        trace = "strace -qq -o /dev/null -e inject=prctl:signal=STOP:when=1"
        rank = runtime.machine.popen(["bash", "-c", f"{trace} {runtime.ch_run} {squashfs} -- busybox true"])
        server = server_of(runtime)
        await_that(
            lambda: re.search(
                r"[Tt] \((stopped|tracing stop)",
                runtime.machine.run("grep -h State /proc/[0-9]*/status").stdout,
            )
        )
        runtime.machine.run(f"kill -9 {server}; pkill -CONT -f '^{runtime.ch_run}'", check=True)
        _, errors = rank.communicate(timeout=10)
        assert rank.returncode == 84
        assert "the image's file server does not serve" in errors
        assert "[CH-0074]" in errors

    def test_server_that_can_not_start(self, runtime: Runtime, squashfs: str) -> None:
        runtime.machine.run(
            "mkdir -p ~/bin && printf '#!/bin/sh\\necho no can do >&2; exit 3' >~/bin/squashfuse_ll && chmod +x ~/bin/*",
            check=True,
        )
        result = runtime.shell(in_image(squashfs, "true"), env={"PATH": "/home/alice/bin:/usr/bin:/bin"})
        assert result.returncode == 84
        assert f"{squashfs}: squashfuse_ll: no can do: " in result.stderr
        assert "[CH-0074]" in result.stderr

    def test_no_server_installed(self, runtime: Runtime, squashfs: str) -> None:
        path = runtime.machine.run("command -v squashfuse_ll").stdout.strip()
        runtime.machine.root(f"mount --bind /dev/null {path}")
        try:
            result = runtime(squashfs, "--", "true")
        finally:
            runtime.machine.root(f"umount {path}")
        assert result.returncode == 31
        assert "needs squashfuse_ll, of package squashfuse" in result.stderr
        assert "[CH-0073]" in result.stderr


class TestDevice:
    """/dev/fuse is not there for users everywhere."""

    @pytest.fixture
    def device(self, runtime: Runtime) -> Iterator[str]:
        yield "/dev/fuse"
        runtime.machine.root("umount /dev/fuse; mount --bind /run/fuse /dev/fuse")

    def test_closed(self, runtime: Runtime, squashfs: str, device: str) -> None:
        runtime.machine.root(
            f"mknod -m 600 /run/closed c 10 229; mount --bind /run/closed {device}; rm /run/closed"
        )
        result = runtime(squashfs, "--", "true")
        assert result.returncode == 31
        assert "can't open /dev/fuse: /dev/fuse: Permission denied" in result.stderr
        assert "an administrator must chmod 666 /dev/fuse" in result.stderr
        assert "[CH-0070]" in result.stderr
        runtime.machine.root("umount /dev/fuse")

    def test_no_driver(self, runtime: Runtime, squashfs: str, device: str) -> None:
        runtime.machine.root(
            f"mknod -m 666 /run/driverless c 10 250; mount --bind /run/driverless {device}; rm /run/driverless"
        )
        result = runtime(squashfs, "--", "true")
        assert result.returncode == 31
        assert "modprobe fuse" in result.stderr
        assert "[CH-0071]" in result.stderr
        runtime.machine.root("umount /dev/fuse")
