"""Programs that want privilege: what they are told while RUN runs, and how fakeroot(1) gets into an image.

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
from chlaunch.image.dockerfile.scope import PATH
from chlaunch.rootfs import Rootfs


@dataclass(frozen=True)
class Tamed:
    """A program that won't run without privilege unless told. It is there if probe is; file gets content."""

    probe: str
    file: str
    content: str
    reason: str


@dataclass(frozen=True)
class Installer:
    """A package manager. command: for /bin/sh; afterwards the image has fakeroot."""

    program: str
    command: str
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


def _red_hat(program: str) -> str:
    """Return the command for Red Hat's; of RHEL fakeroot is in EPEL, which goes again."""
    epel = "https://dl.fedoraproject.org/pub/epel/epel-release-latest-$(rpm -E %rhel).noarch.rpm"
    words = ("install fakeroot", f"install {epel}", "install fakeroot", "remove epel-release")
    first, *rest = (f"{program} -y {word}" for word in words)
    return f"{first} || {{ {' && '.join(rest)}; }}"


# The same commands as Charliecloud's (github.com/hpc/charliecloud, lib/force.py).
# The first that an image has is taken.
INSTALLERS = (
    Installer(
        "apt-get",
        "export DEBIAN_FRONTEND=noninteractive; "
        "apt-get update && apt-get --yes --no-install-recommends install fakeroot",
        "images come without lists of packages",
    ),
    Installer("dnf", _red_hat("dnf"), "Fedora, RHEL 8 and later"),
    Installer("yum", _red_hat("yum"), "RHEL 7 has no dnf"),
    Installer(
        "zypper",
        "zypper --non-interactive install fakeroot /usr/bin/getopt",
        "the script fakeroot calls getopt, which its package does not ask for",
    ),
    Installer("apk", "apk add --no-cache fakeroot", "--no-cache: its index is fetched and not kept"),
    Installer("pacman", "pacman -Sy --noconfirm fakeroot", "images come without lists of packages"),
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


def has(image: Rootfs, program: str) -> bool:
    """Say whether an image has a program where programs are."""
    return any(image.is_file(f"{directory}/{program}") for directory in PATH.split(":"))


def installer(image: Rootfs) -> Installer | None:
    """Return what puts fakeroot into an image; None if it has no package manager that is known."""
    return next((row for row in INSTALLERS if has(image, row.program)), None)
