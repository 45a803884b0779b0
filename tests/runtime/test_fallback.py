"""Without the new mount calls the container is the same: on old kernels (ENOSYS) and in outer sandboxes (EPERM)."""

from __future__ import annotations

import io
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest
from machine import CHECKOUT
from made import layout

if TYPE_CHECKING:
    from pathlib import Path

    from made import Entries
    from runtime import Runtime

EPERM, EINVAL, ENOSYS = 1, 22, 38
# Flags of mount(2): of ch-run's overlays to read and to write, and of mount(8)'s.
OVERLAYS = {"x86_64": "165:5,165:4,165:1"}
PIVOT_ROOT = {"x86_64": "155"}
CALLS = {"open_tree": "428", "move_mount": "429", "openat2": "437", "mount_setattr": "442"}
FILE_CALLS = {"fsopen": "430", "fsconfig": "431", "fsmount": "432", "pidfd_open": "434", "close_range": "436"}
ALL_CALLS = [*CALLS.values(), *FILE_CALLS.values()]

SCRIPT = """
cat /gpfs/deep/file /opt/file; ls -A /; id -un; cut -d' ' -f5 /proc/self/mountinfo | grep -cx /
touch /x /gpfs/x /etc/x 2>&1; ls /proc/1/status; readlink /bin
"""


def container(runtime: Runtime, before: str) -> str:
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    result = runtime.shell(
        f"{before} $CH_RUN -j -b ~/data:/gpfs/deep -b ~/data:/opt $IMAGE -- sh -c '{SCRIPT.replace(chr(39), chr(34))}'"
    )
    assert result.returncode == 0
    return result.stdout + result.stderr


@pytest.mark.parametrize("error", [ENOSYS, EPERM])
@pytest.mark.parametrize("calls", [*CALLS.values(), ",".join(CALLS.values())])
def test_without_new_calls(runtime: Runtime, calls: str, error: int) -> None:
    expected = container(runtime, "")
    assert "content" in expected
    assert expected.count("Read-only file system") == 3
    assert container(runtime, f"$TOOLS/deny {error} {calls}") == expected


@pytest.mark.parametrize("error", [ENOSYS, EPERM])
@pytest.mark.parametrize("calls", [*ALL_CALLS, ",".join(FILE_CALLS.values()), ",".join(ALL_CALLS)])
def test_image_file_without_new_calls(runtime: Runtime, squashfs: str, calls: str, error: int) -> None:
    """It is mounted by mount(2) then, and its server ends with the container all the same."""
    script = "touch /x 2>&1; md5sum /bin/busybox; cat /gpfs/deep/file /opt/file; ls -A /; id -un"
    words = f"-j -b ~/data:/gpfs/deep -b ~/data:/opt {squashfs} -- sh -c '{script}'"
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    result = runtime.shell(f"$TOOLS/deny {error} {calls} $CH_RUN {words}")
    runtime.await_no_servers()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == runtime.shell(f"$CH_RUN {words}").stdout
    assert "Read-only file system" in result.stdout
    assert result.stdout.count("content") == 2
    runtime.await_no_servers()


def test_keeper_lets_go_without_close_range(runtime: Runtime, squashfs: str) -> None:
    """A descriptor above the present limit on their number is closed too."""
    keeper = "readlink /proc/$(pgrep -x ch-run-keeper)/fd/*; cat /proc/$(pgrep -x ch-run-keeper)/comm"
    result = runtime.shell(
        f"exec 200>/tmp/held; ulimit -n 100; $TOOLS/deny {ENOSYS} 436 $CH_RUN {squashfs} -- "
        f"sh -c 'touch /tmp/up; until [ -e /tmp/end ]; do sleep 0.01; done' & exec 200>&-; "
        f"until [ -e /tmp/up ]; do sleep 0.01; done; {keeper}; touch /tmp/end; wait; rm /tmp/up /tmp/end /tmp/held"
    )
    runtime.await_no_servers()
    assert result.stderr == ""
    assert "ch-run-keeper" in result.stdout
    assert "/tmp/held" not in result.stdout


def test_server_dies_without_pidfds(runtime: Runtime, squashfs: str) -> None:
    """The keeper ends the ranks by their PIDs then."""
    result = runtime.shell(
        f"$TOOLS/deny {ENOSYS} 424,434,436 $CH_RUN {squashfs} -- sh -c 'touch /tmp/up; sleep 60' 2>/tmp/said & "
        "until [ -e /tmp/up ]; do sleep 0.01; done; rm /tmp/up; pkill -KILL squashfuse_ll; wait $!; echo $?; cat /tmp/said"
    )
    runtime.await_no_servers()
    assert result.stdout.startswith("137\n")
    assert "squashfuse_ll was killed by signal 9" in result.stdout


def test_without_pivot_root(runtime: Runtime) -> None:
    """A diskless node's initial root file system can't be pivoted away."""
    machine = runtime.machine.run("uname -m").stdout.strip()
    assert container(runtime, f"$TOOLS/deny {EINVAL} {PIVOT_ROOT[machine]}") == container(runtime, "")


def test_locked_flags_are_kept(runtime: Runtime) -> None:
    """Re-mounting must repeat nosuid and the like: the old NFS trouble, "can't re-mount image read-only"."""
    image = runtime.copy_image("flags")
    runtime.machine.root(f"mkdir -p /tmp/flags && mount --bind {image} /tmp/flags")
    runtime.machine.root("mount -o remount,bind,nosuid,nodev,noatime /tmp/flags")
    try:
        result = runtime.shell(
            f"$TOOLS/deny {ENOSYS} {','.join(CALLS.values())} $CH_RUN /tmp/flags -- touch /x"
        )
        assert "Read-only file system" in result.stderr
    finally:
        runtime.machine.root("umount /tmp/flags")


DOCKERFILE = """\
FROM layered AS first
RUN echo one >/one && rm /data/second && touch /data/third/x
COPY Dockerfile /data/first
RUN mkdir /closed && echo closed >/closed/f && chmod 0 /closed/f /closed /etc /
RUN --mount=type=bind,from=layered,source=/data,target=/seen cat /seen/second >/two
FROM first
COPY --from=first /two /three
LABEL a=b
"""
BUILT = """
cd /tmp/$1
mkdir context
cp ../Dockerfile context
ch-image -s s -q import $IMAGE tiny
$CH_RUN -s s tiny -- /bin/sh -c 'ls /ch'
ch-image -s s import ../layout layered 2>&1 | grep -v '^layer '
$CH_RUN -s s layered -- /bin/sh -c 'cd /data; ls; cat second /ch/environment'
ch-image -s s build -t built context 2>&1 | sed 's/ (.* s)//'
$CH_RUN -s s built -- /bin/sh -c 'ls /data /data/third /one; cat /two /three /closed/f; head -n1 /data/first; test ! -e /seen'
ch-image -s s build -t built context 2>&1 | grep -c '^ *[0-9]*[*] '
ch-convert -s s -q built built.sqfs 2>&1
$CH_RUN built.sqfs -- cat /one /three
ch-convert -s s -q -o oci built built.oci 2>&1
ch-image -s other -q import built.oci again 2>&1
$CH_RUN -s other again -- ls /data
"""


def test_without_overlays(runtime: Runtime, tmp_path: Path) -> None:
    """Before Linux 5.11 an image in storage is one directory, which is said; each RUN gets a copy of it."""
    upper: Entries = {"data": None, "data/first": b"1\n", "data/second": b"2\n", "data/third": None}
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w") as tar:
        tar.add(runtime.image, ".")
    layout(tmp_path / "layout", [base.getvalue(), upper, {"data/.wh.first": b""}])
    shared = runtime.machine.outside("/tmp/overlays")
    shutil.copytree(tmp_path / "layout", shared / "layout")
    (shared / "Dockerfile").write_text(DOCKERFILE)
    (shared / "script").write_text(BUILT)
    (shared / "new").mkdir()
    (shared / "old").mkdir()
    runtime.machine.root("chown -R alice: /tmp/overlays")
    machine = runtime.machine.run("uname -m").stdout.strip()
    path = f"PATH={CHECKOUT / '.venv/bin'}:$PATH"
    script = "/bin/sh -eu /tmp/overlays/script overlays"
    new = runtime.shell(f"{path} {script}/new")
    deny = f"{path} $TOOLS/deny %d {OVERLAYS[machine]}"
    old = runtime.shell(f"{deny % EPERM} {script}/old")
    assert (old.returncode, old.stderr) == (new.returncode, new.stderr) == (0, "")
    why = "users can't mount overlays here (permission denied)"
    said = [line for line in old.stdout.splitlines() if not line.endswith(why)]
    assert said == new.stdout.splitlines()
    assert old.stdout.count(why) == 4
    assert (shared / "old/s/images/built/layers").read_text().count("\n") == 2
    # Some file systems say no by another word. What was built for a newer kernel is built of the same steps.
    again = "cd /tmp/overlays/new; ch-image -s s -qq build -t built context; $CH_RUN -s s built -- cat /one"
    for before in ("cd /tmp/overlays/old; $CH_RUN -s s built -- cat /one", again):
        result = runtime.shell(f"{deny % EINVAL} /bin/sh -euc '{before}'")
        assert (result.returncode, result.stdout) == (0, "one\n"), result.stderr
