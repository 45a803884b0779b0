"""Programs that want privilege: what they are told while RUN runs.

ch-run --seccomp does most of it: owners, users and devices are, or seem, as dpkg, rpm and apk want them. What
is here is the rest, a row for each program. In need of nothing are dnf and zypper themselves: see
tests/images/test_package_managers.py. Nor is apk 2 or 3, by its source alone (apk-tools, src/fs_fsys.c and
src/database.c): it sets owners with fchownat and makes devices with mknodat, both of which succeed;
capabilities with fsetxattr, which root of a user namespace may; runs scripts after chroot, which it may
too; and believes to be root where lib/apk/db is root's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chlaunch.image.build.binds import Bind
from chlaunch.rootfs import Rootfs


@dataclass(frozen=True)
class Tamed:
    """A program that won't run without privilege unless told. It is there if probe is; file gets content."""

    probe: str
    file: str
    content: str
    reason: str


TAMED = (
    Tamed(
        "/etc/apt/apt.conf.d",
        "/etc/apt/apt.conf.d/zz-chlaunch",
        'APT::Sandbox::User "root";\n',
        "apt becomes user _apt to download, and looks whether it has (apt.conf(5), APT::Sandbox)",
    ),
    Tamed(
        "/usr/lib/rpm",
        "/etc/rpm/macros.zz-chlaunch",
        "%_netsharedpath /dev:/proc:/sys\n",
        "these are the host's, and rpm looks for a device file after mknod(2): it leaves alone what is there "
        "(rpm's FAQ; github.com/containers/toolbox/pull/640, github.com/sylabs/singularity/pull/2107)",
    ),
)


def files(image: Rootfs, work: Path) -> Iterator[Bind]:
    """Give the files by which programs are told, where the image has the programs. work: an empty directory.

    Raises:
        OSError: they can't be written.

    """
    for number, row in enumerate(TAMED):
        if image.is_directory(row.probe) and image.mode(row.file) is None:
            source = work / str(number)
            source.write_text(row.content)
            yield Bind(source, row.file)
