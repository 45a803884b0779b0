"""An image of another architecture is built and runs, by qemu-user, which the user registers for himself."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from building import CH_IMAGE, ch_image
from images import image
from machine import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from machine import Machine

CH_RUN = CHECKOUT / ".venv/bin/ch-run"
STORAGE = "/home/alice/foreign"

# The head of an ELF file for arm64 that can be executed, and which of its bits count (binfmt_misc, Documentation/
# admin-guide/binfmt-misc.rst). F: the interpreter is opened now, as the image does not have it.
HEAD = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
BINFMT = "/proc/sys/fs/binfmt_misc"

DOCKERFILE = """\
FROM busybox
SHELL ["/bin/busybox", "sh", "-c"]
ARG TARGETARCH
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN uname -m >/machine && echo $TARGETARCH >>/machine
CMD ["/bin/cat", "/machine"]
"""


@pytest.fixture
def emulated(may_lack: Callable[[], AbstractContextManager[None]]) -> list[str]:
    """Return words before a command of alice's with which it can execute programs for arm64.

    A user namespace can have rows of its own since Linux 6.7. A kernel is nothing that can be installed, so with
    an older one the test is skipped in any case.
    """
    if not _is_able():
        pytest.skip("users of this kernel can't register a format of programs")
    with may_lack():
        row = f":qemu-aarch64:M::{HEAD}:{MASK}:{image('qemu')}/usr/bin/qemu-aarch64-static:F"
    script = (
        f'mount -t binfmt_misc none {BINFMT} && printf %s {shlex.quote(row)} >{BINFMT}/register && exec "$@"'
    )
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def _is_able() -> bool:
    """Say whether this kernel lets a user register a format."""
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    return (major, minor) >= (6, 7) and "\tbinfmt_misc\n" in Path("/proc/filesystems").read_text()


def test_arm64(
    machine: Machine, emulated: list[str], may_lack: Callable[[], AbstractContextManager[None]]
) -> None:
    with may_lack():
        root = image("arm64")
    imported = ch_image(machine, "import", "--arch=arm64", root, "busybox", storage=STORAGE)
    assert imported.returncode == 0, imported.stderr
    machine.run(["mkdir", "-p", "arm64"], check=True)
    machine.outside("/home/alice/arm64/Dockerfile").write_text(DOCKERFILE)
    env = {"CH_IMAGE_STORAGE": STORAGE}
    build = [CH_IMAGE, "build", "--arch=arm64", "-t", "armed", "/home/alice/arm64"]
    machine.run([*emulated, *build], env=env, check=True)
    listed = machine.run([CH_IMAGE, "list", "--long"], env=env, check=True).stdout
    assert [row.split()[-1] for row in listed.splitlines() if "arm64" in row] == [
        "armed~arm64",
        "busybox~arm64",
    ]
    said = machine.run([*emulated, CH_RUN, "armed~arm64"], env=env, check=True).stdout
    assert said == "aarch64\narm64\n"
