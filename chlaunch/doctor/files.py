"""File systems, image files and what serves them."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from chlaunch.doctor.rows import Patient, Row, Verdict, fine, problem, warning
from chlaunch.launch.loader import loader
from chlaunch.launch.view import View
from chlaunch.rootfs import Rootfs, open_image
from chlaunch.slurm import ask

# Seconds for a program to say its version.
DEADLINE = 5.0

# A rank's part of the shared memory of its node, in MiB: btl_sm_segment_size of Open MPI 5, the largest among
# MPIs' (Open MPI 4: 4; ompi_info --param btl all --level 9).
SHARED_PER_RANK = 16

# Of /tmp, in MiB: session directories and PMIx's shared memory of a few jobs.
TMP_WANTED = 64

MIB = 1 << 20

_FUSE_MULTITHREADED = b"fuse_session_loop_mt"


def _needs_fuse(patient: Patient) -> bool:
    """Say whether the image is a file."""
    if not patient.image:
        return False
    image = open_image(patient.image, patient.storage)
    return image.storage is None and not Path(image.path).is_dir()


def fuse(patient: Patient) -> list[Row]:
    """Open /dev/fuse."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        mode = stat.S_IMODE(Path("/dev/fuse").stat().st_mode) if Path("/dev/fuse").exists() else 0
        return [judge_fuse(error.errno or 0, mode, needed=_needs_fuse(patient))]
    return [judge_fuse(0, 0, needed=False)]


def judge_fuse(error: int, mode: int, *, needed: bool) -> Row:
    """Return what there is to say of /dev/fuse. error: of opening it, 0 if it could be; mode: its rights."""
    name = "/dev/fuse"
    if not error:
        return fine(name, "can be opened")
    verdict: Verdict = "problem" if needed else "warning"
    if error in (errno.EACCES, errno.EPERM):
        found = f"can't be opened, its mode is {mode:04o}: no SquashFS, SIF or EROFS file can be run"
        remedy = (
            "as root: chmod 666 /dev/fuse, by a udev rule so that it lasts; or take a directory as the image"
        )
    else:
        found = f"{os.strerror(error)}: no SquashFS, SIF or EROFS file can be run"
        remedy = "as root: modprobe fuse; or take a directory as the image"
    return Row(name, verdict, found, remedy)


def squashfuse(patient: Patient) -> list[Row]:
    """Find the server for SquashFS files."""
    path = shutil.which("squashfuse_ll", path=patient.environment.get("PATH", os.defpath))
    if path is None:
        return [judge_squashfuse(None, "", needed=_needs_fuse(patient), threads=False)]
    stdout, stderr = ask([path, "--help"], DEADLINE, "")
    found = re.search(r"squashfuse ([0-9][0-9.]*)", stdout + stderr)
    return [
        judge_squashfuse(path, found[1] if found else "", needed=False, threads=_has_threads(path, patient))
    ]


def judge_squashfuse(path: str | None, version: str, *, needed: bool, threads: bool) -> Row:
    """Return what there is to say of squashfuse_ll. needed: the image is a file; threads: it uses many."""
    name = "squashfuse"
    if path is None:
        return Row(
            name,
            "problem" if needed else "warning",
            "there is no squashfuse_ll in PATH: no SquashFS or SIF file can be run",
            "as root: apt install squashfuse (dnf install squashfuse); or take a directory as the image",
        )
    said = f"{path}, version {version or 'unknown'}"
    if threads:
        return fine(name, f"{said}, with threads")
    return warning(
        name,
        f"{said}, with one thread: an image file is read as fast as one core unpacks it",
        "install a squashfuse that is built with threads (its ./configure --enable-multithreading)",
    )


def _has_threads(path: str, patient: Patient) -> bool:
    """Say whether a squashfuse_ll has threads: it, or its library, calls libfuse's loop for them."""
    view = View(Rootfs("/"))
    libraries = loader(view, patient.environment.get("LD_LIBRARY_PATH", "")).closure(os.path.realpath(path))
    files = [path, *(found for name, found in libraries.items() if "squashfuse" in name and found)]
    return any(_FUSE_MULTITHREADED in Path(file).read_bytes() for file in files)


def noexec(patient: Patient) -> list[Row]:
    """Find out where nothing can be executed."""
    environment = patient.environment
    places = {
        "storage": patient.storage,
        "home": environment.get("HOME", ""),
        "/tmp": "/tmp",  # noqa: S108  looked at, not written to
    }
    if patient.image:
        image = open_image(patient.image, patient.storage)
        if image.storage is None and Path(image.path).is_dir():
            places["image"] = image.path
    return [judge_noexec({name: path for name, path in places.items() if path and _is_noexec(path)})]


def _is_noexec(path: str) -> bool:
    """Say whether path is on a file system mounted noexec; no if it is not there."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return False


def judge_noexec(places: Mapping[str, str]) -> Row:
    """Return what there is to say of the places that are on file systems mounted noexec, by what they are."""
    name = "noexec mounts"
    if not places:
        return fine(name, "neither storage, nor home, nor /tmp is on one")
    listed = ", ".join(path if path == kind else f"{path} ({kind})" for kind, path in places.items())
    if "image" in places or "storage" in places:
        return problem(
            name,
            f"{listed}: the programs of images there can't be executed",
            "move the image, or storage with export CH_IMAGE_STORAGE=DIR, to another file system; or make a"
            " SquashFS file of it, which may be there: mksquashfs DIR IMAGE.sqfs",
        )
    return warning(
        name,
        f"{listed}: programs and image directories there can't be executed",
        "keep them elsewhere: findmnt -T DIR",
    )


def shared_memory(_patient: Patient) -> list[Row]:
    """Look how much room /dev/shm has."""
    status = os.statvfs("/dev/shm")  # noqa: S108  looked at, not written to
    return [
        judge_shared_memory(
            status.f_blocks * status.f_frsize // MIB,
            status.f_bavail * status.f_frsize // MIB,
            len(os.sched_getaffinity(0)),
        )
    ]


def judge_shared_memory(size: int, free: int, cpus: int) -> Row:
    """Return what there is to say of a /dev/shm of that size and with that much free, in MiB."""
    name = "/dev/shm"  # noqa: S108  a name
    said = f"{free} of {size} MiB free"
    wanted = SHARED_PER_RANK * cpus
    if free >= wanted:
        return fine(name, said)
    need = f"Open MPI 5 takes {SHARED_PER_RANK} MiB a rank there, {wanted} MiB for {cpus} CPUs"
    remedy = (
        "remove what dead jobs left: ls -l /dev/shm;"
        f" as root: mount -o remount,size={max(wanted, size * 2)}m /dev/shm"
    )
    if free < 2 * SHARED_PER_RANK:
        return problem(name, f"{said}: {need}; ranks without room die of SIGBUS", remedy)
    return warning(name, f"{said}: {need}", remedy)


def tmp(_patient: Patient) -> list[Row]:
    """Look how much room /tmp has."""
    status = os.statvfs("/tmp")  # noqa: S108  looked at, not written to
    size, free = (blocks * status.f_frsize // MIB for blocks in (status.f_blocks, status.f_bavail))
    writable = os.access("/tmp", os.W_OK | os.X_OK)  # noqa: S108  likewise
    return [judge_tmp(size, free, writable=writable, full=bool(status.f_files) and not status.f_favail)]


def judge_tmp(size: int, free: int, *, writable: bool, full: bool) -> Row:
    """Return what there is to say of a /tmp of that size and with that much free, in MiB; full: of inodes."""
    name = "/tmp"  # noqa: S108  a name
    said = f"{free} of {size} MiB free{', and no inode' if full else ''}"
    if not writable:
        found = "you may not write to it: MPI's session directories are made there"
        return problem(name, found, "as root: chmod 1777 /tmp")
    if free < TMP_WANTED or full:
        found = f"{said}: session directories and PMIx's shared memory are made there"
        return warning(name, found, "make room, or export TMPDIR=DIR of the node")
    return fine(name, said)


def storage(patient: Patient) -> list[Row]:
    """Look at the directory that holds images by name."""
    path = patient.storage
    name = "storage"
    try:
        status = os.stat(path)  # noqa: PTH116  its error words the row
    except FileNotFoundError:
        return [fine(name, f"{path} is not there yet")]
    if not stat.S_ISDIR(status.st_mode):
        return [problem(name, f"{path} is no directory", "move it away, or export CH_IMAGE_STORAGE=DIR")]
    if status.st_uid != os.geteuid():
        remedy = "export CH_IMAGE_STORAGE=DIR, one of your own"
        return [problem(name, f"{path} belongs to user {status.st_uid}: its images are not believed", remedy)]
    images = Path(path, "images")
    names = [entry.name for entry in images.iterdir()] if images.is_dir() else []
    if not names and any(Path(path).iterdir()):
        return [
            warning(
                name,
                f"{path} holds no image that we know, but other files",
                "another program's storage? export CH_IMAGE_STORAGE=DIR",
            )
        ]
    space = os.statvfs(path)
    return [fine(name, f"{path}: images: {len(names)}; {space.f_bavail * space.f_frsize // MIB} MiB free")]
