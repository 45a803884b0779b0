"""System calls as the kernel's own headers number them, for every architecture that ch-run knows."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from space import UnavailableError


class Architecture(NamedTuple):
    """One way to make system calls."""

    token: int  # AUDIT_ARCH_… of linux/audit.h: the ELF machine, bit 31 for 64 bits, bit 30 for little-endian
    header: str
    compiler: str = ""  # whose directory the header is in; it belongs to all where this is empty


ARCHITECTURES = {
    "x86-64": Architecture(0xC000003E, "asm/unistd_64.h", "x86_64-linux-gnu"),
    "i386": Architecture(0x40000003, "asm/unistd_32.h", "x86_64-linux-gnu"),
    "arm64": Architecture(0xC00000B7, "asm-generic/unistd.h"),
    "arm": Architecture(0x40000028, "asm/unistd-eabi.h", "arm-linux-gnueabihf"),
    "ppc64le": Architecture(0xC0000015, "asm/unistd_64.h", "powerpc64le-linux-gnu"),
    "s390x": Architecture(0x80000016, "asm/unistd_64.h", "s390x-linux-gnu"),
    "riscv64": Architecture(0xC00000F3, "asm-generic/unistd.h"),
}
NATIVE = {"x86_64": "x86-64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

# Debian 13's linux-libc-dev has all architectures; in 12 there is a package for each to compile for.
PLACES = ("/usr/include/{}", "/usr/{}/include")
DEFINITION = re.compile(r"^#define __NR_(\w+)\s+(?:(\d+)|\(__NR_SYSCALL_BASE ?\+ ?(\d+)\))$", re.MULTILINE)


@cache
def numbers(architecture: str) -> dict[str, int]:
    """Return the number of each system call by its name."""
    row = ARCHITECTURES[architecture]
    paths = [Path(place.format(row.compiler), row.header) for place in PLACES]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise UnavailableError(f"there is no {paths[0]}: run tests/setup.sh test")
    return {name: int(plain or added) for name, plain, added in DEFINITION.findall(found.read_text())}
