"""Package managers in builds, as an ordinary user: packages whose files and scriptlets want privilege; and fakeroot."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from building import ch_image, outward
from images import image
from machine import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from machine import Machine

CH_RUN = CHECKOUT / ".venv/bin/ch-run"
STORAGE = "/home/alice/managers"

HEAD = "Name: {name}\nVersion: 1\nRelease: 1\nSummary: {name}\nLicense: none\nBuildArch: noarch\n"
ODD = """\
Requires(pre): odd-users
Requires(post): /bin/sh
%description
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/var/lib/odd
for name in setuid setgid caps; do echo '#!/bin/true' >%{buildroot}/usr/bin/odd-$name; done
echo mail >%{buildroot}/var/lib/odd/mail
ln %{buildroot}/var/lib/odd/mail %{buildroot}/var/lib/odd/hard
ln -s mail %{buildroot}/var/lib/odd/link
%post
set -e
chown odd:odd /var/lib/odd/mail
chgrp -R mail /var/lib/odd
mknod /var/lib/odd/null c 1 3
setcap cap_net_raw=ep /usr/bin/odd-setgid
echo done >/var/lib/odd/done
%preun
chown root:mail /var/lib/odd && rm /var/lib/odd/done
%files
%attr(4755, root, root) /usr/bin/odd-setuid
%attr(2755, root, mail) /usr/bin/odd-setgid
%attr(0755, root, root) %caps(cap_net_raw,cap_net_admin=ep) /usr/bin/odd-caps
%dir %attr(2770, odd, odd) /var/lib/odd
%attr(0640, odd, mail) /var/lib/odd/mail
%attr(0640, odd, mail) /var/lib/odd/hard
%attr(-, mail, mail) /var/lib/odd/link
"""
MOUNTED = """\
%description
%install
mkdir -p %{buildroot}/dev %{buildroot}/proc %{buildroot}/sys
%files
%attr(0700, root, root) /dev
%attr(0555, root, root) /proc
%attr(0555, root, root) /sys
%dev(c, 1, 3) %attr(0666, root, root) /dev/odd
"""
FAKEROOT = """\
Provides: /usr/bin/getopt
%description
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\\necho "$@" >/said\\nexec "$@"\\n' >%{buildroot}/usr/bin/fakeroot
%files
%attr(0755, root, root) /usr/bin/fakeroot
"""
PACKAGES = {
    # Of another system, as far as other packages ask for it.
    "base": "Provides: /bin/sh\n%description\n%files\n",
    "odd-users": "%description\n%pre\ngroupadd -r odd && useradd -r -g odd odd\n%files\n",
    "odd": ODD,
    "mounted": MOUNTED,
    "fakeroot": FAKEROOT,
}

REPOSITORY = """\
FROM rpm
COPY *.spec /specs/
RUN rpmbuild -bb --define '_rpmdir /repository' /specs/* && createrepo_c /repository
RUN mkdir -p /etc/yum.repos.d && \\
    printf '[local]\\nname=local\\nbaseurl=file:///repository\\ngpgcheck=0\\n' >/etc/yum.repos.d/local.repo && \\
    zypper --non-interactive addrepo --no-gpgcheck file:///repository local
"""


class Manager(NamedTuple):
    """How to install and remove packages. database: where it is; Debian's rpm has root's home for it."""

    name: str
    install: str
    remove: str
    database: str


DNF = Manager("dnf", "dnf -y install", "dnf -y remove", "/root/.rpmdb")
ZYPPER = Manager("zypper", "zypper -n install", "zypper -n remove", "/var/lib/rpm")


class Site(NamedTuple):
    """alice's storage, with the image repository."""

    machine: Machine
    context: Path

    def build(self, text: str, *words: str, name: str = "out", expect: int = 0) -> str:
        """Build as alice; return all that was said."""
        self.machine.outside(self.context / "Dockerfile").write_text(text)
        done = ch_image(self.machine, "build", "-t", name, *words, self.context, storage=STORAGE)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def inside(self, command: str, name: str = "out") -> str:
        """Return what a command prints in an image."""
        words = [CH_RUN, "-s", STORAGE, "--unset-env=*", "--set-env", "--no-passwd", name]
        return self.machine.run([*words, "--", "/bin/sh", "-c", command], check=True).stdout


@pytest.fixture(scope="module")
def site(machine: Machine, may_lack: Callable[[], AbstractContextManager[None]]) -> Site:
    """Return a site whose image has dnf, zypper and a repository of odd packages."""
    with may_lack():
        root = image("rpm")
    done = ch_image(machine, "import", root, "rpm", storage=STORAGE)
    assert done.returncode == 0, done.stderr
    context = machine.home("alice") / "managers-context"
    machine.run(["mkdir", context], check=True)
    for name, text in PACKAGES.items():
        machine.outside(context / f"{name}.spec").write_text(HEAD.format(name=name) + text)
    site = Site(machine, context)
    site.build(REPOSITORY, name="repository")
    return site


@pytest.mark.parametrize("manager", [DNF, ZYPPER], ids=lambda manager: manager.name)
def test_files_that_want_privilege(site: Site, manager: Manager) -> None:
    """Owners, set-id bits, capabilities, devices of the host's, users; in one layer, and gone in the next."""
    site.build(f"FROM repository\nRUN {manager.install} odd mounted\n", name="odd")
    query = f"rpm --dbpath={manager.database} -q odd mounted"
    found = site.inside(f"{query}; cat /var/lib/odd/hard /var/lib/odd/done; id -un odd", "odd")
    assert found.splitlines() == ["odd-1-1.noarch", "mounted-1-1.noarch", "mail", "done", "odd"]
    assert site.inside("getcap /usr/bin/odd-*", "odd").splitlines() == [
        "/usr/bin/odd-caps cap_net_admin,cap_net_raw=ep",
        "/usr/bin/odd-setgid cap_net_raw=ep",
    ]
    assert site.inside("stat -c %a /usr/bin/odd-set*; ls /dev/odd /var/lib/odd/null || echo none", "odd") == (
        "755\n755\nnone\n"
    )
    site.build(f"FROM odd\nRUN echo >>/usr/bin/odd-caps && {manager.remove} odd\n")
    assert site.inside(f"{query}; ls /usr/bin/odd-* || echo none").splitlines() == [
        "package odd is not installed",
        "mounted-1-1.noarch",
        "none",
    ]


def test_without_emulation(site: Site) -> None:
    said = site.build(f"FROM repository\nRUN {DNF.install} odd\n", "--force=none", expect=1)
    assert "Error unpacking rpm package odd-1-1.noarch" in said


def test_rpm_is_told_of_the_host_s_directories(site: Site) -> None:
    """It would look for the device file; an image's own file of that name is left alone."""
    own = "FROM repository\nCOPY <<EOF /etc/rpm/macros.zz-chlaunch\nEOF\n"
    said = site.build(f"{own}RUN {DNF.install} mounted\n", expect=1)
    assert "Error unpacking rpm package mounted-1-1.noarch" in said


@pytest.mark.parametrize("manager", [DNF, ZYPPER], ids=lambda manager: manager.name)
def test_fakeroot_is_installed_by(site: Site, manager: Manager) -> None:
    """By the first manager that is there; the command then runs under it."""
    others = {"apt-get", "dnf", "zypper"} - {manager.name}
    site.build(f"FROM repository\nRUN cd /usr/bin && rm {' '.join(others)}\n", name="one")
    said = site.build("FROM one\nRUN echo run\n", "--force=fakeroot")
    assert f"RUN {manager.name} " in said
    assert site.inside("cat /said") == "/bin/sh -c echo run\n"


def test_fakeroot_by_apt(site: Site) -> None:
    """It is a step of its own, done once, and knows what owners it was told of."""
    text = "FROM rpm\nENV A=1\nRUN touch /x && chown 8:12 /x && stat -c %u:%g /x >/said\n"
    words = ["--force=fakeroot", *outward(site.machine)]
    steps = [line for line in site.build(text, *words).splitlines() if "RUN" in line]
    assert [line[:5] for line in steps] == ["  3. ", "  3. "]
    assert steps[0].endswith("install fakeroot # --force=fakeroot")
    assert site.inside("cat /said") == "8:12\n"
    again = site.build(f"{text}RUN test -e /x\n", *words)
    assert [line[:5] for line in again.splitlines() if "RUN" in line] == ["  3* ", "  3* ", "  4. "]
