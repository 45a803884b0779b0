"""What of the host a container keeps: groups, terminal, X display, devices and their libraries."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime import Runtime


HOOK = {
    "hookName": "createContainer",
    "path": "/usr/bin/nvidia-cdi-hook",
    "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/opt/demo/lib"],
}


@pytest.fixture(scope="module")
def display(runtime: Runtime) -> Iterator[str]:
    """Start an X server that listens on its socket file only and wants a key."""
    machine = runtime.machine
    machine.run("rm -f ~/.Xauthority; touch ~/.Xauthority; xauth add :7 . $(mcookie)", check=True)
    machine.root("mkdir -p -m 1777 /tmp/.X11-unix")
    words = ["Xvfb", ":7", "-screen", "0", "64x64x8", "-nolisten", "tcp", "-nolisten", "local"]
    server = machine.popen(
        [*words, "-auth", "/home/alice/.Xauthority"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    machine.run("until [ -S /tmp/.X11-unix/X7 ]; do sleep 0.02; done", check=True, timeout=20)
    yield ":7"
    machine.run("pkill -x Xvfb", check=True)
    server.wait()


@pytest.fixture(scope="module")
def library(runtime: Runtime) -> Path:
    """Make a host library that only ld.so.cache can find, and a program that needs it."""
    home = runtime.machine.outside("/home/alice")
    runtime.machine.run("mkdir -p ~/demo/lib", check=True)
    (home / "demo/lib.c").write_text("int answer(void) { return 42; }\n")
    (home / "demo/app.c").write_text(
        '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); }\n'
    )
    build = (
        "cd ~/demo && gcc -shared -fPIC -Wl,-soname,libdemo.so.1 -o lib/libdemo.so.1.0 lib.c &&"
        " ln -sf libdemo.so.1.0 lib/libdemo.so.1 && gcc -o app app.c lib/libdemo.so.1.0"
    )
    runtime.machine.run(build, check=True)
    return home


class TestIdentity:
    """Who the user is, without asking a name service."""

    def test_supplementary_groups_are_kept(self, runtime: Runtime) -> None:
        machine = runtime.machine
        machine.root("echo secret >/tmp/of-group; chgrp 4242 /tmp/of-group; chmod 640 /tmp/of-group")
        user = machine.users[0]
        command = [runtime.ch_run, runtime.image, "--", "cat", "/tmp/of-group"]
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.uid}"]
        assert machine.root([*become, "--groups=4242", *command]).stdout == "secret\n"
        assert machine.root([*become, "--clear-groups", *command], check=False).returncode == 1

    @pytest.mark.release
    def test_no_name_service_is_asked(self, runtime: Runtime) -> None:
        """Neither nsswitch.conf nor a socket of nscd or sssd is opened, nor /etc/passwd."""
        for words in (["-j"], ["-W"], ["--uid=0"]):
            script = f"strace -qq -f -e trace=open,openat,connect -o /tmp/trace $CH_RUN {' '.join(words)} $IMAGE -- busybox true; cat /tmp/trace"
            trace = runtime.shell(script).stdout.partition("busybox")[0]
            assert "uid_map" in trace
            assert not [
                word for word in ("nsswitch", "nscd", '"/etc/passwd"', "connect", ".so") if word in trace
            ]

    def test_programs_that_give_their_terminal_to_tty(self, runtime: Runtime) -> None:
        """MATLAB and others chgrp their terminal to group 5, which must have a name for that: --gid=5."""
        script = "t=$(readlink /proc/self/fd/0); chgrp 5 $t; echo status $?; stat -c %g $t"
        runtime.machine.outside("/tmp/tty.sh").write_text(script)
        line = "script -qec '$CH_RUN {} $IMAGE -- sh /tmp/tty.sh' /dev/null"
        default = runtime.shell(line.format("")).stdout
        assert "Invalid argument" in default
        assert "status 1" in default
        mapped = runtime.shell(line.format("--gid=5")).stdout.split()
        assert mapped == ["status", "0", "5"]


class TestDisplay:
    """X clients reach the user's display, from a private /tmp too."""

    CLIENT = ("-b", "/usr", "-b", "/lib", "-b", "/lib64")  # of the host: the small image has none

    def ask(self, runtime: Runtime, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return runtime(*self.CLIENT, *words, runtime.image, "--", "/usr/bin/xdpyinfo", env=env)

    @pytest.mark.parametrize("words", [(), ("--private-tmp",), ("--home",), ("-W", "-t")])
    def test_client(self, runtime: Runtime, display: str, words: tuple[str, ...]) -> None:
        result = self.ask(runtime, *words, DISPLAY=display)
        assert "name of display:    :7" in result.stdout
        assert result.stderr == ""

    def test_key_elsewhere(self, runtime: Runtime, display: str) -> None:
        runtime.machine.run("mkdir -p ~/keys; cp ~/.Xauthority ~/keys/k", check=True)
        result = self.ask(runtime, "-t", DISPLAY=display, XAUTHORITY="/home/alice/keys/k")
        assert "name of display:    :7" in result.stdout

    def test_without_the_key(self, runtime: Runtime, display: str) -> None:
        result = self.ask(runtime, DISPLAY=display, XAUTHORITY="/home/alice/nowhere")
        assert "unable to open display" in result.stderr

    @pytest.mark.usefixtures("display")
    def test_without_a_display_nothing_is_shown(self, runtime: Runtime) -> None:
        script = "ls -A /tmp /home; echo $XAUTHORITY"
        assert runtime.output(script, "-t").split() == ["/home:", "/tmp:"]

    def test_the_key_can_not_be_changed(self, runtime: Runtime, display: str) -> None:
        result = runtime.sh("echo >>/home/alice/.Xauthority", env={"DISPLAY": display})
        assert "Read-only file system" in result.stderr


class TestDevices:
    """Container Device Interface, through ch-cdi."""

    def specify(self, library: Path, **edits: object) -> None:
        folder = library / "cdi"
        folder.mkdir(exist_ok=True)
        document = {
            "cdiVersion": "0.6.0",
            "kind": "example.com/demo",
            "devices": [
                {
                    "name": "0",
                    "containerEdits": {"deviceNodes": [{"path": "/dev/fuse"}], "env": ["DEMO=$0:$HOME"]},
                },
                {"name": "1", "containerEdits": {"env": ["OTHER=1"]}},
            ],
            "containerEdits": edits,
        }
        (folder / "demo.json").write_text(json.dumps(document))

    def mounts(self) -> list[dict[str, object]]:
        return [
            {
                "hostPath": "/home/alice/demo/lib/libdemo.so.1.0",
                "containerPath": "/opt/demo/lib/libdemo.so.1.0",
                "options": ["ro", "nosuid", "nodev", "bind"],
            },
            {"hostPath": "/home/alice/demo/app", "containerPath": "/opt/demo/app", "options": ["ro", "bind"]},
        ]

    DIRS = "--cdi-dirs=/home/alice/cdi"

    def test_library_of_the_host(self, runtime: Runtime, library: Path, image_ompi4: Path) -> None:
        """The whole of it, on an image that is not the user's and stays as it is."""
        self.specify(library, mounts=self.mounts(), hooks=[HOOK])
        before = (image_ompi4 / "etc/ld.so.cache").read_bytes()
        script = "/opt/demo/app; echo $DEMO; ls -l /dev/fuse | cut -c1; echo >>/opt/demo/app; python3 -c 'import ctypes; ctypes.CDLL(\"libmpi.so.40\")'"
        result = runtime(self.DIRS, "--device=example.com/demo=0", str(image_ompi4), "--", "sh", "-c", script)
        assert result.stdout == "42\n$0:$HOME\nc\n", result
        assert "Read-only file system" in result.stderr
        assert (image_ompi4 / "etc/ld.so.cache").read_bytes() == before

    def test_without_the_hook(self, runtime: Runtime, library: Path, image_ompi4: Path) -> None:
        self.specify(library, mounts=self.mounts())
        result = runtime(self.DIRS, "--device=example.com/demo=0", str(image_ompi4), "--", "/opt/demo/app")
        assert "libdemo.so.1: cannot open shared object file" in result.stderr

    @pytest.mark.parametrize(
        ("words", "seen"),
        [
            (["--device", "example.com/demo=1"], "unset 1"),
            (["-d"], "$0:$HOME 1"),
            (["--cdi"], "$0:$HOME 1"),
            (["-dexample.com/demo"], "$0:$HOME 1"),
            (["--cdi=example.com/demo=all"], "$0:$HOME 1"),
            (["--cdi=/home/alice/cdi/demo.json"], "$0:$HOME 1"),
            (["-j", "--cdi", "--set-env=OTHER=mine"], "$0:$HOME mine"),
        ],
    )
    def test_forms(self, runtime: Runtime, library: Path, words: list[str], seen: str) -> None:
        self.specify(library)
        result = runtime.sh("echo ${DEMO-unset} ${OTHER-unset}", self.DIRS, *words)
        assert (result.stdout, result.stderr) == (f"{seen}\n", "")

    def test_directories_by_variable(self, runtime: Runtime, library: Path) -> None:
        self.specify(library)
        env = {"CH_RUN_CDI_DIRS": "/nowhere:/home/alice/cdi"}
        assert runtime.sh("echo $OTHER", "--device=example.com/demo=1", env=env).stdout == "1\n"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--device=example.com/demo=7"], "example.com/demo=7"),
            (["--cdi=/nowhere.json"], "/nowhere.json"),
        ],
    )
    def test_missing(self, runtime: Runtime, library: Path, words: list[str], message: str) -> None:
        self.specify(library)
        result = runtime.sh("echo started", self.DIRS, *words)
        assert (result.returncode, result.stdout) == (31, "")
        assert "error: " in result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr

    def test_unknown_version_and_hook(self, runtime: Runtime, library: Path) -> None:
        self.specify(
            library, hooks=[{"hookName": "createContainer", "path": "/bin/rm", "args": ["rm", "-r", "/"]}]
        )
        result = runtime.sh("echo started", self.DIRS, "--device=example.com/demo=1")
        assert (result.returncode, result.stdout, "/bin/rm" in result.stderr) == (31, "", True)
        file = library / "cdi/demo.json"
        file.write_text(file.read_text().replace("0.6.0", "9.9.0"))
        result = runtime.sh("echo started", self.DIRS, "--cdi=/home/alice/cdi/demo.json")
        assert (result.returncode, result.stdout, "9.9.0" in result.stderr) == (31, "", True)

    def test_no_helper(self, runtime: Runtime) -> None:
        """A ch-run without the rest of chlaunch beside it."""
        runtime.machine.run(f"mkdir -p ~/lonely; cp {runtime.ch_run} ~/lonely/", check=True)
        result = runtime.machine.run(["/home/alice/lonely/ch-run", "--cdi", runtime.image, "--", "true"])
        assert result.returncode == 31
        assert (
            "can't start ch-cdi, which reads CDI specifications: /home/alice/lonely/ch-cdi: No such"
            in result.stderr
        )
        assert "[CH-0092]" in result.stderr

    def test_no_ldconfig(self, runtime: Runtime) -> None:
        result = runtime.sh("true", "--ld-cache=/usr/bin")
        assert result.returncode == 31
        assert f"can't make /etc/ld.so.cache: {runtime.image}" in result.stderr
        assert "[CH-0040]" in result.stderr
