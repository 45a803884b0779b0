"""What containers need of the kernel. Each thing is tried; sysctls only tell why it failed."""

import errno
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from chlaunch.doctor import kernel
from chlaunch.doctor.rows import Patient, Row, fine, problem, warning

SWITCHES = (
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "user.max_user_namespaces",
    "user.max_mnt_namespaces",
)

# Each container is one of both; ranks that do not join have one each, and jobs may share a node.
NAMESPACES_PER_CPU = 4


def switches() -> dict[str, str]:
    """Return the sysctls of SWITCHES that this kernel has."""
    paths = {name: Path("/proc/sys", *name.split(".")) for name in SWITCHES}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}


def namespaces(_patient: Patient) -> list[Row]:
    """Make a user and a mount namespace, and mount in them."""
    found = switches()
    uid, gid = os.geteuid(), os.getegid()
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("make a user namespace", lambda: kernel.unshare(kernel.NEW_USER)),
        ("map IDs in it", lambda: kernel.map_ids(uid, gid)),
        ("make a mount namespace", lambda: kernel.unshare(kernel.NEW_MOUNTS)),
        ("mount in it", lambda: kernel.mount("none", "/", "", kernel.PRIVATE_BELOW)),
    )
    for step, act in steps:
        try:
            act()
        except OSError as error:
            return [judge_namespaces(step, error.errno or 0, found)]
    return [judge_namespaces("", 0, found), *judge_limits(found, len(os.sched_getaffinity(0)))]


def judge_namespaces(failed: str, error: int, found: Mapping[str, str]) -> Row:
    """Return what there is to say of user namespaces. failed: which step, if one did; found: sysctls."""
    name = "user namespaces"
    if not failed:
        return fine(name, "can be made, and mounted in")
    said = f"can't {failed}: {os.strerror(error)}"
    mounts = "mount" in failed
    if error == errno.ENOSPC:
        limit = "user.max_mnt_namespaces" if mounts else "user.max_user_namespaces"
        return problem(
            name,
            f"{said}: the limit {limit} is {found.get(limit, 'reached')}",
            f"as root: sysctl {limit}=65536, and a line in /etc/sysctl.d for after the next boot",
        )
    for switch, bad, good in (
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if found.get(switch) == bad and error in (errno.EPERM, errno.EACCES):
            profile = (
                "; or load an AppArmor profile for ch-run that has `userns,`" if "apparmor" in switch else ""
            )
            return problem(
                name, f"{said}: sysctl {switch} is {bad}", f"as root: sysctl {switch}={good}{profile}"
            )
    if error == errno.EUSERS:
        return problem(name, f"{said}: too many are nested in each other", "start this outside of containers")
    if error == errno.EINVAL:
        return problem(name, f"{said}: the kernel has none", "a kernel with CONFIG_USER_NS=y is needed")
    return problem(
        name,
        said,
        "a security module, a chroot or the seccomp filter of an outer container forbids it: try outside of"
        " that container, or start it with --security-opt seccomp=unconfined",
    )


def judge_limits(found: Mapping[str, str], cpus: int) -> list[Row]:
    """Return a row for each limit on namespaces that is lower than a node may need."""
    wanted = NAMESPACES_PER_CPU * cpus
    return [
        warning(
            "namespace limits",
            f"{name} is {found[name]}: a job of {cpus} ranks that don't join may need {wanted}",
            f"as root: sysctl {name}=65536",
        )
        for name in ("user.max_user_namespaces", "user.max_mnt_namespaces")
        if found.get(name, "").isdecimal() and int(found[name]) < wanted
    ]


def yama(_patient: Patient) -> list[Row]:
    """Look at who may read whose memory."""
    path = Path("/proc/sys/kernel/yama/ptrace_scope")
    return [judge_yama(path.read_text().strip() if path.exists() else "")]


def judge_yama(scope: str) -> Row:
    """Return what there is to say of kernel.yama.ptrace_scope; empty where there is no Yama."""
    name = "Yama"
    if scope in ("", "0"):
        return fine(name, "not here" if not scope else "off: ranks may read each other's memory")
    remedy = "as root: sysctl kernel.yama.ptrace_scope=0"
    if scope == "1":
        said = "kernel.yama.ptrace_scope is 1: Open MPI and UCX ask to be read, MPICH then copies twice"
        return warning(name, said, remedy)
    return problem(
        name,
        f"kernel.yama.ptrace_scope is {scope}: no rank can read another's memory: large messages are slow, or"
        " fail (Open MPI 4, UCX before 1.16)",
        remedy if scope != "3" else "boot with kernel.yama.ptrace_scope=0: 3 can't be changed before",
    )


def mounts(_patient: Patient) -> list[Row]:
    """Try the mount API of Linux 5.2 and 5.12."""
    kernel.enter_namespaces()
    name = "mount API"
    try:
        tree = kernel.call(
            kernel.OPEN_TREE, kernel.AT_FDCWD, b"/", kernel.TREE_CLONE | kernel.AT_RECURSIVE | os.O_CLOEXEC
        )
        wanted = struct.pack("=QQQQ", kernel.ATTRIBUTE_READ_ONLY, 0, 0, 0)
        flags = kernel.AT_EMPTY_PATH | kernel.AT_RECURSIVE
        kernel.call(kernel.MOUNT_SETATTR, tree, b"", flags, wanted, len(wanted))
        kernel.call(kernel.FSOPEN, b"tmpfs", 1)
    except OSError as error:
        return [fine(name, f"not the new one ({error.strerror}): ch-run takes mount(2), which does as well")]
    return [fine(name, "the new one (open_tree, mount_setattr, fsopen)")]


def overlay(patient: Patient) -> list[Row]:
    """Mount overlays as --write-fake and images of layers need them, where storage is."""
    place = nearest(patient.storage, patient.directory)
    with tempfile.TemporaryDirectory(prefix=".ch-doctor-", dir=place) as top:
        for below in ("one", "two", "all", "memory"):
            Path(top, below).mkdir()
        try:
            os.setxattr(top, "user.ch-doctor", b"")
            attributes = 0
        except OSError as error:
            attributes = error.errno or 0
        return judge_overlay(place, _overlay(top), attributes)


def _overlay(top: str) -> int:
    """Return the error number of mounting overlays below top; 0 if both kinds can be."""
    kernel.enter_namespaces()
    merged = f"{top}/all"
    try:
        kernel.mount("overlay", merged, "overlay", 0, f"lowerdir={top}/one:{top}/two,userxattr")
        kernel.unmount(merged)
        kernel.mount("none", f"{top}/memory", "tmpfs", 0)
        try:
            for below in ("upper", "work"):
                Path(top, "memory", below).mkdir()
            layers = f"lowerdir={top}/one,upperdir={top}/memory/upper,workdir={top}/memory/work,userxattr"
            kernel.mount("overlay", merged, "overlay", 0, layers)
            kernel.unmount(merged)
        finally:
            kernel.unmount(f"{top}/memory")
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def judge_overlay(place: str, error: int, attributes: int) -> list[Row]:
    """Return what there is to say of overlays; both are error numbers, 0 for success; place: where."""
    name = "overlay"
    if error:
        return [
            warning(
                name,
                f"can't be mounted in {place}: {os.strerror(error)}: no --write-fake, and builds copy the"
                " image for each RUN",
                "Linux 5.11 or newer is needed, and a storage on a local file system:"
                " export CH_IMAGE_STORAGE=DIR",
            )
        ]
    if attributes:
        return [
            warning(
                name,
                f"{place} takes no user attributes ({os.strerror(attributes)}): layers can't remove files",
                "put storage on ext4, XFS or (from Linux 6.6) tmpfs: export CH_IMAGE_STORAGE=DIR",
            )
        ]
    return [fine(name, f"can be mounted in {place}")]


def nearest(path: str, otherwise: str) -> str:
    """Return path, or the first directory above it that there is, if that may be written to; or otherwise."""
    there = next(place for place in (Path(path), *Path(path).parents) if place.is_dir())
    return str(there) if os.access(there, os.W_OK | os.X_OK) else otherwise
