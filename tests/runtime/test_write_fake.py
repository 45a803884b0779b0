"""--write-fake: an image that seems writable, and is not changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtime import Runtime


@pytest.fixture(scope="module", params=["directory", "file"])
def own(request: pytest.FixtureRequest, runtime: Runtime, squashfs: str) -> str:
    """Return an image that is the user's own: a directory, or a file, in which everything is."""
    return squashfs if request.param == "file" else runtime.copy_image("own")


def together(rank: str, count: int = 3) -> str:
    """Return a shell line that runs so many ranks at once; $i is the rank's number."""
    return f"for i in $(seq {count}); do {rank} & done; wait"


def test_everywhere(runtime: Runtime, own: str) -> None:
    script = "touch /x /etc/y /usr/bin/z; rm -r /usr/bin/vi /root; mkdir -p /run/a /var/log/b; echo more >>/etc/shadow; ls /x /etc/y; ls -d /root"
    result = runtime("-W", own, "--", "sh", "-c", script)
    assert (result.stdout, result.stderr.count("\n")) == ("/etc/y\n/x\n", 1), result
    again = runtime(own, "--", "sh", "-c", "ls /x /etc/y; ls -d /root /usr/bin/vi")
    assert (again.stdout, again.stderr.count("No such file")) == ("/root\n/usr/bin/vi\n", 2)


def test_size(runtime: Runtime, own: str) -> None:
    script = "head -c 6000000 /dev/zero >/zeros; echo $?; df -k / | tail -1"
    status, line = runtime("--write-fake=4m", own, "--", "sh", "-c", script).stdout.splitlines()
    assert (status, line.split()[1]) == ("1", "4096")
    memory = int(runtime.machine.run("grep MemTotal /proc/meminfo").stdout.split()[1])
    default = int(runtime("-W", own, "--", "sh", "-c", "df -k / | tail -1").stdout.split()[1])
    assert 0.11 * memory < default < 0.13 * memory


@pytest.mark.parametrize("size", ["lots", "5x", "-1"])
def test_bad_size(runtime: Runtime, size: str) -> None:
    result = runtime.sh("true", f"--write-fake={size}")
    assert result.returncode == 31
    assert f"can't use this size: tmpfs, mode=0755,size={size}: Invalid argument" in result.stderr
    assert "[CH-0037]" in result.stderr


def test_the_root_directory_looks_the_same(runtime: Runtime, own: str) -> None:
    for words in ((), ("-W",), ("--write-fake-scope=rank",)):
        assert runtime(*words, own, "--", "stat", "-c", "%a %F", "/").stdout == "755 directory\n"


def test_mount_points_are_made(runtime: Runtime, own: str) -> None:
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    for scope in ("node", "rank"):
        script = "cat /gpfs/deep/file /opt/a/file; touch /gpfs/x /opt/a/y; rm /home/alice/data/y 2>/dev/null; ls /gpfs"
        words = (f"--write-fake-scope={scope}", "-b", "data:/gpfs/deep", "-b", "data:/opt/a", own)
        result = runtime(*words, "--", "sh", "-c", script)
        assert (result.stdout, result.stderr) == ("content\ncontent\ndeep\nx\n", "")


def test_directories_of_others_stay_closed(runtime: Runtime) -> None:
    """Nobody can be given what is root's; mount points are made there all the same."""
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    for scope in ("node", "rank"):
        words = (f"--write-fake-scope={scope}", "-b", "data:/gpfs/deep", "-b", "data:/usr/bin/0")
        result = runtime.sh("cat /gpfs/deep/file /usr/bin/0/file; touch /etc/x; ls /usr/bin/vi", *words)
        assert result.stdout == "content\ncontent\n/usr/bin/vi\n"
        assert "/etc/x: " in result.stderr


class TestScope:
    """Who sees what is written."""

    def test_node(self, runtime: Runtime, own: str) -> None:
        rank = f"$CH_RUN -W --join-tag=node {own} -- sh -c 'echo $i >>/all; sleep 1; sort /all'"
        ranks = together(rank.replace("$i", "'$i'"))
        assert runtime.shell(ranks).stdout.split() == ["1", "2", "3"] * 3

    def test_rank(self, runtime: Runtime, own: str) -> None:
        """Each its own files, all one user namespace."""
        script = "echo $i >>/own; sleep 1; cat /own; readlink /proc/self/ns/user; readlink /proc/self/ns/mnt; ls /dev /proc/self/fd | wc -l"
        rank = f"$CH_RUN --write-fake-scope=rank --join-tag=rank {own} -- sh -c '{script}'"
        result = runtime.shell(together(rank.replace("$i", "'$i'"), 6))
        lines = result.stdout.split()
        assert result.stderr == ""
        assert sorted(line for line in lines if len(line) == 1) == list("123456")
        assert len({line for line in lines if line.startswith("user:")}) == 1
        assert len({line for line in lines if line.startswith("mnt:")}) == 6
        assert len({line for line in lines if line.isdecimal() and len(line) > 1}) == 1
        runtime.await_no_servers()

    @pytest.mark.parametrize("scope", ["node", "rank"])
    def test_siblings_read_each_others_memory(self, runtime: Runtime, own: str, scope: str) -> None:
        script = (
            f"cd $(mktemp -d); for pair in 'a b' 'b a'; do $CH_RUN --write-fake-scope={scope} --join-tag=cma"
            f" {own} -- /tmp/tools/peers $PWD $pair & done; wait"
        )
        assert sorted(runtime.shell(script).stdout.splitlines()) == ["a read b", "b read a"]

    def test_descriptors(self, runtime: Runtime, own: str) -> None:
        words = ("--write-fake-scope=rank", "--join-tag=fds", own, "--", "ls", "/proc/self/fd")
        assert runtime(*words).stdout.split() == ["0", "1", "2", "3"]
        script = f"$CH_RUN --write-fake-scope=rank --join-tag=fds {own} -- sleep 1 & sleep 0.5; $CH_RUN {' '.join(words)}; wait"
        assert runtime.shell(script).stdout.split() == ["0", "1", "2", "3"]

    def test_other_scopes_do_not_mix(self, runtime: Runtime, own: str) -> None:
        script = (
            f"$CH_RUN --join-tag=mix -W {own} -- sh -c 'touch /seen; sleep 1' & sleep 0.3;"
            f"for scope in '' -W --write-fake-scope=rank; do $CH_RUN --join-tag=mix $scope {own} -- ls / | grep -c seen; done; wait"
        )
        assert runtime.shell(script).stdout.split() == ["0", "1", "0"]

    def test_bad_scope(self, runtime: Runtime) -> None:
        result = runtime.sh("true", "--write-fake-scope=job")
        assert (result.returncode, "node or rank, not job" in result.stderr) == (64, True)


def test_excludes_write(runtime: Runtime) -> None:
    result = runtime.sh("true", "-w", "-W")
    assert (result.returncode, "exclude each other" in result.stderr) == (64, True)


def test_killed_ranks_leave_nothing(runtime: Runtime, own: str) -> None:
    mounts = runtime.machine.run("cat /proc/self/mounts").stdout
    script = f"$CH_RUN -j --write-fake-scope=rank {own} -- sh -c 'touch /x; kill -9 $$'"
    assert runtime.shell(together(script)).returncode == 0
    runtime.await_no_servers()
    assert runtime.machine.run("cat /proc/self/mounts").stdout == mounts


def test_hint_for_programs_that_write(runtime: Runtime) -> None:
    image = runtime.copy_image("nginx", "ln -s busybox usr/bin/nginx")
    hint = "hint: this program usually writes below /var or /run, which are read-only here: nginx: add --write-fake"
    plain = runtime(image, "--", "/usr/bin/nginx").stderr
    assert hint in plain
    assert "[CH-0101]" in plain
    for words in (("-W",), ("-w",), ("-q",)):
        assert "hint" not in runtime(*words, image, "--", "nginx").stderr
    for name, value in (("CHLAUNCH_NO_HINTS", "1"), ("SLURM_PROCID", "3"), ("PMIX_RANK", "3")):
        assert "hint" not in runtime(image, "--", "nginx", env={name: value}).stderr
    silenced = runtime("--unset-env=CHLAUNCH_*", image, "--", "nginx", env={"CHLAUNCH_NO_HINTS": "1"})
    assert "hint" not in silenced.stderr
    assert "hint" not in runtime(image, "--", "true").stderr
