"""What others may put in the way: in the environment, on the node, in the time between two calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtime import Runtime


def test_late_keeper_spares_the_next_container(runtime: Runtime, squashfs: str) -> None:
    """A keeper that learns late of its server's end finds other ranks of that tag and image: not its own."""
    result = runtime.shell(
        f"$CH_RUN --join-tag=late {squashfs} -- sh -c 'echo >/tmp/up; until [ -e /tmp/end ]; do sleep 0.01; done' & "
        "until [ -e /tmp/up ]; do sleep 0.01; done; keeper=$(pgrep -x ch-run-keeper); kill -STOP $keeper; "
        "echo >/tmp/end; wait; rm /tmp/up; "
        f"$CH_RUN --join-tag=late {squashfs} -- sh -c 'echo >/tmp/up; exec sleep 1' & "
        "until [ -e /tmp/up ]; do sleep 0.01; done; kill -CONT $keeper; "
        "while [ -e /proc/$keeper ]; do sleep 0.01; done; wait $!; echo $?; rm /tmp/up /tmp/end"
    )
    runtime.await_no_servers()
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_storage_of_a_stranger(runtime: Runtime) -> None:
    """Anybody can make /var/tmp/alice.ch before alice does: neither it nor a link is hers, unless she says so."""
    user = f"alice{os.getpid()}"  # /var/tmp is the host's, where other tests may run
    store = f"/var/tmp/{user}.ch"
    make = "mkdir -p $0/l/1 $0/images/app; cp -a $1/. $0/l/1; touch $0/l/1/bobs; echo 1 >$0/images/app/layers"
    runtime.machine.run(["sh", "-c", f"umask 022; {make}", store, runtime.image], user="bob", check=True)
    own = runtime.copy_image("app")
    try:
        for link in ("true", f"mv {store} /tmp/bobs.ch && ln -s /tmp/bobs.ch {store}"):
            runtime.machine.run(link, user="bob", check=True)
            result = runtime("app", "--", "ls", "/", env={"USER": user})
            assert (result.returncode, result.stderr) == (0, "")
            assert "bobs" not in result.stdout
        runtime.machine.run(f"rm {store}", user="bob", check=True)
        assert "bobs" in runtime("-s", "/tmp/bobs.ch", "app", "--", "ls", "/").stdout
    finally:
        runtime.machine.root(f"rm -rf {store} /tmp/bobs.ch {own}")


def test_closed_standard_error(runtime: Runtime) -> None:
    """What ch-run says then goes nowhere, not into the rendezvous file that would be descriptor 2."""
    result = runtime.shell(
        "space='readlink /proc/self/ns/mnt'; run() { $CH_RUN -v --join-tag=closed $IMAGE -- sh -c \"$1\"; }; "
        'run "$space; echo >/tmp/up; until [ -e /tmp/end ]; do sleep 0.01; done" & '
        "until [ -e /tmp/up ]; do sleep 0.01; done; run true <&- >&- 2>&-; "
        "run 'ls /proc/self/fd >/tmp/fds' <&- 2>&-; run \"$space\"; touch /tmp/end; wait; cat /tmp/fds; "
        "rm /tmp/up /tmp/end /tmp/fds"
    )
    first, second, *descriptors = result.stdout.split()
    assert first == second
    assert descriptors == ["0", "1"]  # 0 is how ls reads the directory: closed ones stay closed


EXECVE = """
import ctypes, sys
words = [word.encode() for word in sys.argv[1:]]
array = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)
ctypes.CDLL(None).execve(words[0], array(words), array([b"PATH=/bin", b"NOTHING", b"=x", b"N=1", b"", b"N=2"]))
"""


def test_environment_words_without_equals(runtime: Runtime) -> None:
    """execve(2) hands on whatever it is given; to remove variables comes to its end all the same."""
    words = [runtime.ch_run, "--unset-env=N*", runtime.image, "--", "env"]
    result = runtime.machine.run(["python3", "-c", EXECVE, *words])
    assert (result.returncode, result.stderr) == (0, "")
    assert "N=" not in result.stdout


def test_fifo_as_command(runtime: Runtime) -> None:
    result = runtime.shell("mkfifo -m 755 /tmp/fifo; $CH_RUN $IMAGE -- /tmp/fifo; echo $?; rm /tmp/fifo")
    assert result.stdout == "49\n"
    assert "can't exec: /tmp/fifo: Permission denied" in result.stderr


@pytest.mark.parametrize("length", range(4))
def test_mount_points_with_many_spaces(runtime: Runtime, length: int) -> None:
    """In mountinfo each is four characters: more than PATH_MAX, which may end within any of them."""
    point = f"/opt/{'x' * length}" + f"/{' ' * 250}" * 5
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    words = ("--write-fake-scope=rank", "-b", f"/home/alice/data:{point}", runtime.image, "--")
    result = runtime(*words, "cat", f"{point}/file")
    assert (result.stdout, result.stderr) == ("content\n", "")


def test_path_that_is_too_long(runtime: Runtime) -> None:
    """The beginning of a path is another file's."""
    place = "/tmp/d" + "/." * 2043
    runtime.machine.run("mkdir -p /tmp/d; printf '#!/bin/sh\\necho wrong\\n' >/tmp/d/co; chmod +x /tmp/d/co")
    result = runtime(f"--set-env=PATH={place}", runtime.image, "--", "command")
    assert len(f"{place}/co") == 4095
    assert (result.returncode, result.stdout) == (49, "")
    assert "can't exec: command not found in the image: command: No such file" in result.stderr


def test_umask_that_closes_all(runtime: Runtime) -> None:
    """Where ranks meet is open to their user all the same, now and later."""
    runtime.machine.root("rm -rf /dev/shm/chlaunch-* /tmp/chlaunch-* /run/user/*/chlaunch")
    result = runtime.shell(
        "for mask in 0777 0022; do (umask $mask; $CH_RUN --join-tag=umask $IMAGE -- sh -c umask); done; "
        "stat -c %a /dev/shm/chlaunch-*"
    )
    assert (result.stdout.split(), result.stderr) == (["0777", "0022", "700"], "")


def test_options_that_look_like_others(runtime: Runtime) -> None:
    """A bind's three words (source, target, how) are no three directories of libraries: other containers."""
    runtime.machine.run("mkdir -p ~/data", check=True)
    space = "readlink /proc/self/ns/mnt"
    result = runtime.shell(
        f"$CH_RUN --join-tag=words -b data:/mnt $IMAGE -- sh -c '{space}; touch /tmp/up; sleep 1' & "
        "until [ -e /tmp/up ]; do sleep 0.01; done; rm /tmp/up; "
        f"$CH_RUN --join-tag=words --ld-cache=data --ld-cache=/mnt --ld-cache= $IMAGE -- {space}; wait"
    )
    assert result.stdout.count("mnt:") == 1
    assert "CH-0040" in result.stderr  # the image has no ldconfig, so this is not the container that is there


def test_relative_binds_of_other_directories(runtime: Runtime) -> None:
    """The same words, of ranks that were started in different directories, are other files."""
    result = runtime.shell(
        "for i in 1 2; do mkdir -p ~/d$i/data; echo $i >~/d$i/data/file; done; "
        "for i in 1 2; do (cd ~/d$i; $CH_RUN --join-tag=where -b data:/mnt $IMAGE -- "
        "sh -c 'cat /mnt/file; sleep 0.5') & done; wait"
    )
    assert (sorted(result.stdout.split()), result.stderr) == (["1", "2"], "")
