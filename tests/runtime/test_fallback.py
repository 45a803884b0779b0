"""Without the new mount calls the container is the same: on old kernels (ENOSYS) and in outer sandboxes (EPERM)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtime import Runtime

EPERM, EINVAL, ENOSYS = 1, 22, 38
PIVOT_ROOT = {"x86_64": "155"}
CALLS = {"open_tree": "428", "move_mount": "429", "openat2": "437", "mount_setattr": "442"}

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
