"""What a command finds in the container: its files, its environment, its rights."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtime import Runtime


def test_root_is_read_only(runtime: Runtime) -> None:
    result = runtime.sh("touch /x /etc/x; echo $?")
    assert result.stdout == "1\n"
    assert result.stderr.count("Read-only file system") == 2


def test_default_mounts(runtime: Runtime) -> None:
    on_host = runtime.machine.run(
        "stat -c %d:%i /dev/null /proc/1 /sys/kernel /tmp /etc/hosts"
    ).stdout.strip()
    assert runtime.output("stat -c %d:%i /dev/null /proc/1 /sys/kernel /tmp /etc/hosts") == on_host


def test_host_root_is_gone(runtime: Runtime) -> None:
    mounts = runtime.output("cut -d' ' -f5 /proc/self/mountinfo").split()
    assert mounts.count("/") == 1
    assert not [mount for mount in mounts if "chlaunch" in mount]


def test_ids_and_rights(runtime: Runtime) -> None:
    uid = runtime.machine.run("id -u").stdout.strip()
    assert runtime.output("id -u; id -g; id -un").split() == [uid, uid, "alice"]
    assert runtime.output("id -u; id -g; id -un", "--uid=0", "-g", "0").split() == ["0", "0", "root"]
    status = runtime.output("cat /proc/self/status")
    assert re.search(r"CapPrm:\s+0+\n", status)
    assert re.search(r"NoNewPrivs:\s+1\n", status)


def test_passwd_and_group(runtime: Runtime) -> None:
    uid = runtime.machine.run("id -u").stdout.strip()
    lines = runtime.output("cat /etc/passwd /etc/group").splitlines()
    assert f"alice:x:{uid}:{uid}:alice:/:/bin/sh" in lines
    assert f"alice:x:{uid}:" in lines
    assert not any(
        line.startswith("alice") for line in runtime.output("cat /etc/passwd", "--no-passwd").splitlines()
    )


def test_user_unset_is_no_error(runtime: Runtime) -> None:
    result = runtime.shell("env -u USER -u LOGNAME $CH_RUN $IMAGE -- id -un")
    assert (result.stdout, result.stderr) == ("user\n", "")


def test_same_process(runtime: Runtime) -> None:
    result = runtime.shell("echo $$; exec $CH_RUN $IMAGE -- sh -c 'echo $$'")
    assert len(set(result.stdout.split())) == 1


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -TERM $$", 128 + 15), ("kill -9 $$", 128 + 9)]
)
def test_exit_status_is_the_commands(runtime: Runtime, script: str, status: int) -> None:
    assert runtime.shell(f"$CH_RUN $IMAGE -- sh -c '{script}'; echo $?").stdout == f"{status}\n"


def test_no_descriptor_leaks(runtime: Runtime) -> None:
    runtime.machine.run("mkdir -p ~/empty", check=True)
    result = runtime.output("ls /proc/self/fd", "--join-tag=fds", "-b", "/home/alice/empty:/missing/point")
    assert result.split() == ["0", "1", "2", "3"]  # 3 is how ls reads the directory


def test_inherited_descriptors_stay(runtime: Runtime) -> None:
    assert runtime.shell("exec 7<<<pmi; $CH_RUN --join-tag=fd7 $IMAGE -- sh -c 'cat <&7'").stdout == "pmi\n"


def test_signals_are_left_alone(runtime: Runtime) -> None:
    result = runtime.shell(
        "trap '' ALRM; grep -E 'SigBlk|SigIgn' /proc/self/status; $CH_RUN -j $IMAGE -- grep -E 'SigBlk|SigIgn' /proc/self/status"
    )
    lines = result.stdout.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


class TestBind:
    """-b and --bind-try."""

    @pytest.fixture(autouse=True)
    def files(self, runtime: Runtime) -> None:
        runtime.machine.run("mkdir -p ~/data/sub; echo content >~/data/file; rm -rf ~/data/made", check=True)

    def test_same_path(self, runtime: Runtime) -> None:
        assert runtime.output("cat /home/alice/data/file", "-b", "/home/alice/data") == "content"

    def test_existing_point(self, runtime: Runtime) -> None:
        assert runtime.output("cat /mnt/file", "--bind=/home/alice/data:/mnt") == "content"

    def test_writable(self, runtime: Runtime) -> None:
        runtime.output("mkdir /mnt/made", "-b", "/home/alice/data:/mnt")
        assert runtime.machine.run("ls -d ~/data/made").returncode == 0

    @pytest.mark.parametrize(
        "point",
        ["/gpfs/deep/er", "/var/deep", "/usr/bin/deep", "/srv//slashes/", "/var/../gpfs", "/bin/deep"],
    )
    def test_missing_point_is_made_beside_the_image(self, runtime: Runtime, point: str) -> None:
        listing = f"ls -alR {runtime.image}"
        before = runtime.machine.run(listing).stdout
        assert (
            runtime.output(f"cat {point}/file; ls / /usr/bin >/dev/null", "-b", f"data:{point}") == "content"
        )
        assert runtime.machine.run(listing).stdout == before

    def test_missing_file_point(self, runtime: Runtime) -> None:
        assert runtime.output("cat /opt/a/b", "-b", "data/file:/opt/a/b") == "content"

    def test_made_points_are_read_only(self, runtime: Runtime) -> None:
        result = runtime.sh("touch /gpfs/x /x /opt/x", "-b", "data:/gpfs/deep", "-b", "data:/opt/deep")
        assert result.stderr.count("Read-only file system") == 3

    def test_what_stood_beside_is_still_there(self, runtime: Runtime) -> None:
        plain = runtime.output("ls -A /; ls -A /usr/bin; readlink /bin")
        covered = runtime.output(
            "ls -A /; ls -A /usr/bin; readlink /bin", "-b", "data:/gpfs", "-b", "data:/usr/bin/0"
        )
        assert sorted(covered.split()) == sorted([*plain.split(), "gpfs", "0"])

    def test_several_points_in_one_directory(self, runtime: Runtime) -> None:
        binds = [word for number in range(100) for word in ("-b", f"data:/opt/d{number}")]
        assert runtime.output("cat /opt/d*/file | sort -u; ls /opt | wc -l", *binds).split() == [
            "content",
            "100",
        ]

    def test_links_lead_inside_the_image(self, runtime: Runtime) -> None:
        changes = (
            "ln -s /inside abs && ln -s ../../outside up && mkdir inside && ln -s /nothing/here dangling"
        )
        image = runtime.copy_image("linked", changes)
        for target, seen in (("/abs", "/inside"), ("/up", "/outside"), ("/dangling", "/nothing/here")):
            result = runtime("-b", f"data:{target}", image, "--", "cat", f"{seen}/file")
            assert (result.stdout, result.stderr) == ("content\n", "")

    def test_inside_another_mount(self, runtime: Runtime) -> None:
        result = runtime.sh("true", "-b", "data:/mnt", "-b", "data:/mnt/sub/missing")
        assert result.returncode == 31
        assert "can't bind: destination missing inside another mount: /mnt/sub/missing" in result.stderr
        assert runtime.output("cat /mnt/sub/file", "-b", "data:/mnt", "-b", "data:/mnt/sub") == "content"

    def test_crowded_directory(self, runtime: Runtime) -> None:
        image = runtime.copy_image("crowded", "mkdir many && cd many && seq 1000 | xargs touch")
        result = runtime("-b", "data:/many/x", image, "--", "true")
        assert result.returncode == 31
        assert "too many files beside the missing destination: /many/x" in result.stderr

    def test_try(self, runtime: Runtime) -> None:
        words = ("--bind-try=/not/there:/mnt", "--bind-try=$UNSET/x:/mnt", "--bind-try=$DATA/sub/..:/mnt")
        assert runtime.output("cat /mnt/file", *words, env={"DATA": "/home/alice/data"}) == "content"
        assert runtime.output("ls -A /mnt", *words[:2]) == ""

    def test_try_at_the_variables_own_path(self, runtime: Runtime) -> None:
        assert (
            runtime.output("cat $DATA/file", "--bind-try=$DATA", env={"DATA": "/home/alice/data"})
            == "content"
        )


class TestWrite:
    """The image itself, with -w."""

    def test_image_is_written(self, runtime: Runtime) -> None:
        image = runtime.copy_image("writable")
        result = runtime("-w", "-b", "/home/alice:/new/point", image, "--", "touch", "/x", "/new/point/y")
        assert (result.returncode, result.stderr) == (0, "")
        assert runtime.machine.run(f"ls -d {image}/x {image}/new/point ~/y").returncode == 0

    def test_foreign_image(self, runtime: Runtime) -> None:
        result = runtime.sh("touch /x", "-w")
        assert "Permission denied" in result.stderr


class TestDirectory:
    """Where the command starts."""

    def test_default(self, runtime: Runtime) -> None:
        assert runtime.output("pwd") == "/"

    def test_cd(self, runtime: Runtime) -> None:
        assert runtime.output("pwd", "-c", "/usr/bin") == "/usr/bin"

    def test_cd_try(self, runtime: Runtime) -> None:
        assert runtime.output("pwd", "--cd-try=/usr") == "/usr"
        result = runtime.sh("pwd", "--cd-try=/not/there")
        assert result.stdout == "/\n"
        assert (
            "can't cd to /not/there in the container, starting in /: No such file or directory"
            in result.stderr
        )

    def test_home(self, runtime: Runtime) -> None:
        runtime.machine.run("touch ~/at-home", check=True)
        assert runtime.output("ls $HOME/at-home; echo $HOME", "--home").split() == [
            "/home/alice/at-home",
            "/home/alice",
        ]


class TestEnvironment:
    """Charliecloud's rules, and --env-default."""

    def test_defaults(self, runtime: Runtime) -> None:
        env = {"TMPDIR": "/home/alice", "PATH": "/usr/bin", "KEPT": "yes"}
        names = "$HOME $PATH ${TMPDIR-unset} $CH_RUNNING $KEPT"
        assert runtime.output(f"echo {names}", env=env) == "/root /usr/bin:/bin unset Weird Al Yankovic yes"

    def test_tmpdir_is_tmp(self, runtime: Runtime) -> None:
        runtime.machine.run("mkdir -p ~/t; touch ~/t/mine", check=True)
        assert runtime.output("ls /tmp", env={"TMPDIR": "/home/alice/t"}) == "mine"

    @pytest.mark.parametrize(
        ("words", "value"),
        [
            (["--set-env=X=new"], "new"),
            (["--set-env=X="], ""),
            (["--set-env=X=$Y:$NONE:/z"], "why:/z"),
            (["--set-env=X=a$Y"], "a$Y"),
            (["--set-env=X=1", "--set-env=X=$X:2"], "1:2"),
            (["--unset-env=X"], "unset"),
            (["--unset-env=@(X|Z)"], "unset"),
            (["--unset-env=*", "--set-env=PATH=/bin"], "unset"),
            (["--env-default=X=new"], "old"),
            (["--unset-env=X", "--env-default=X=new"], "new"),
        ],
    )
    def test_changes(self, runtime: Runtime, words: list[str], value: str) -> None:
        assert runtime.output('echo "${X-unset}"', *words, env={"X": "old", "Y": "why"}) == value

    def test_file(self, runtime: Runtime) -> None:
        runtime.machine.run("printf 'A=1\\n\\nB=$A:2\\nC='\\''a b'\\''\\n' >~/env", check=True)
        assert runtime.output('echo "$A $B $C"', "--set-env=/home/alice/env") == "1 1:2 a b"

    def test_images_own(self, runtime: Runtime) -> None:
        image = runtime.copy_image("environment", "mkdir ch && echo FROM=image >ch/environment")
        assert runtime("--set-env", image, "--", "sh", "-c", "echo $FROM").stdout == "image\n"


def test_join_pid(runtime: Runtime) -> None:
    result = runtime.shell(
        "$CH_RUN $IMAGE -- sh -c 'echo $$; sleep 60' >~/pid & until [ -s ~/pid ]; do :; done; read pid <~/pid\n"
        "$CH_RUN --join-pid=$pid $IMAGE -- readlink -f /proc/self/ns/mnt; readlink -f /proc/$pid/ns/mnt; kill $!"
    )
    first, second = (line.rsplit("/", 1)[1] for line in result.stdout.split())
    assert first == second


@pytest.mark.release
def test_nested(runtime: Runtime) -> None:
    words = ["-b", str(runtime.ch_run), "-b", runtime.image, runtime.image, "--", runtime.ch_run]
    assert runtime(*words, "-j", runtime.image, "--", "echo", "inner").stdout == "inner\n"


def test_version(runtime: Runtime) -> None:
    version = runtime("--version").stdout.strip()
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?", version)
    described = json.loads(runtime("--version", "--json").stdout)
    assert described["version"] == version
    assert "join" in described["features"]


@pytest.mark.release
def test_links_libc_only(runtime: Runtime) -> None:
    listing = subprocess.run(
        ["readelf", "-d", runtime.ch_run], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"NEEDED.*\[(.*)\]", listing)) <= {"libc.so.6", "librt.so.1"}
