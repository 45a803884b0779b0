"""Images as one directory, where layers can't be stacked.

Where overlays can't be mounted (before Linux 5.11; file systems without user.* attributes, such as NFS before
5.9; more layers than fit a mount), each layer's files are moved onto what lies below. An image then is that
directory, complete, and the layer of ours on top, of which ch-run needs ``/ch`` alone (image.c).
"""

import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image.removal import remove_tree

if TYPE_CHECKING:
    from chlaunch.image.unpack import Unpacked

# Of one overlay: the kernel takes 500 (OVL_MAX_STACK), ours comes on top.
LAYERS_MOST = 499
SECONDS_MOST = 10

# What it says on stderr is the kernel's reason.
TRIAL = ("unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "overlay", "none", "m", "-o")


def reason(work: Path, layers: int) -> str:
    """Return why layers can't be stacked in the file system of an empty directory; empty if they can."""
    if layers > LAYERS_MOST:
        return f"it has {layers} layers, and the kernel stacks {LAYERS_MOST}"
    try:
        os.mknod(work / "whiteout", stat.S_IFCHR, 0)
    except OSError as error:
        return f"its file system has no whiteouts ({os.strerror(error.errno or 0)})"
    try:
        os.setxattr(work, "user.overlay.opaque", b"y")
        os.removexattr(work, "user.overlay.opaque")
    except OSError as error:
        return f"its file system has no user attributes ({os.strerror(error.errno or 0)})"
    return refusal(work)


def refusal(work: Path, layer: str = "a") -> str:
    """Return why the kernel lets no user mount an overlay, not even to read; empty if it does.

    work: an empty directory. layer: a directory that is to be seen, one there if it does not matter which.
    """
    for name in ("a", "b", "m"):
        (work / name).mkdir()
    try:
        done = subprocess.run(
            [*TRIAL, f"ro,userxattr,lowerdir={layer}:b"],
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_MOST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unshare: {error}"
    if done.returncode == 0:
        return ""
    words = done.stderr.decode(errors="replace").strip().splitlines()
    why = words[0].rpartition(": ")[2].rstrip(".") if words else f"mount ends with {done.returncode}"
    return f"users can't mount overlays here ({why})"


def put_upon(tree: Path, layer: Path, unpacked: "Unpacked") -> None:
    """Move a layer's files onto a tree, and remove there what the layer says is gone.

    layer: unpacked without overlay's marks; afterwards nothing of it is left but directories.
    """
    for name in unpacked.whiteouts:
        _remove(_below(tree, name))
    for name in unpacked.opaque:
        there = _below(tree, name)
        if there is not None and there.is_dir() and not there.is_symlink():
            for entry in list(there.iterdir()):
                _remove(entry)
    _merge(tree, layer)


def _merge(tree: Path, layer: Path) -> None:
    """Move what is in a directory into another, which gets its mode and times too."""
    status = layer.lstat()
    with os.scandir(layer) as entries:
        found = list(entries)
    for entry in found:
        there = tree / entry.name
        directory = entry.is_dir(follow_symlinks=False)
        if directory and there.is_dir() and not there.is_symlink():
            _merge(there, layer / entry.name)
            continue
        _remove(there)
        os.rename(entry.path, there)  # noqa: PTH104  of names just read
    tree.chmod(stat.S_IMODE(status.st_mode))
    os.utime(tree, ns=(status.st_atime_ns, status.st_mtime_ns))


def _below(tree: Path, name: str) -> Path | None:
    """Return where name is in a tree of ours; None if the way leads over a link or is none."""
    path = tree
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        return path if not parts else None
    for part in parts[:-1]:
        path /= part
        if path.is_symlink() or not path.is_dir():
            return None
    return path / parts[-1]


def _remove(path: Path | None) -> None:
    """Remove what is there, if anything is."""
    if path is None:
        return
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
