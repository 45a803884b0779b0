"""What is made of a root file system: archives, SquashFS files, directories, layers.

Owner and group of everything in a file is root. The same tree gives the same archive, and the same layer.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chlaunch.errors import ImageError
from chlaunch.image.compress import compressor
from chlaunch.image.events import Events
from chlaunch.image.layout import PLAIN_LAYER
from chlaunch.image.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    Descriptor,
    Manifest,
    Platform,
    digest_of,
    make_manifest,
)
from chlaunch.image.metadata import config_of, read_metadata
from chlaunch.image.pack import pack
from chlaunch.image.push import file_digest
from chlaunch.image.removal import remove_tree
from chlaunch.image.roots import Root, is_image
from chlaunch.image.store import replace
from chlaunch.image.tools import Tools
from chlaunch.rootfs import Rootfs

# By the end of an archive's name: programs that compress, the first that is installed. None may write a time.
# zstd's level: SquashFS files have 1.04 times the size of those by gzip, made 20 times as fast.
ZSTD_LEVEL = 3
COMPRESSORS: dict[str, tuple[tuple[str, ...], ...]] = {
    ".tar": (),
    "gz": (("pigz", "--no-time", "--no-name"), ("gzip", "--no-name")),
    "bz2": (("pbzip2", "-c"), ("bzip2",)),
    "xz": (("xz", "--threads=0"),),
    "zst": (("zstd", "--quiet", "--threads=0", f"-{ZSTD_LEVEL}"),),
}
ENDINGS = {"tgz": "gz", "tbz": "bz2", "txz": "xz", "tz2": "bz2"}

# Sorted, and without what differs from one unpacking to the next: so the same tree gives the same archive.
TAR = (
    "tar",
    "--create",
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime",
    "--sort=name",
    "--owner=root:0",
    "--group=root:0",
    "--sparse",
    "--sparse-version=0.0",  # the newer ones have tar's process ID in names
)

# Memory: it would take a quarter of the machine's, and is no faster for it.
SQUASH = (
    "-no-progress",
    "-quiet",
    "-noappend",
    "-all-root",
    "-comp",
    "zstd",
    "-Xcompression-level",
    str(ZSTD_LEVEL),
    "-mem",
    "128M",
)

# What mksquashfs says when it leaves out what it can't read, and goes on.
LEFT_OUT = ("creating empty file", "ignoring")


def compressing(name: str, tools: Tools) -> tuple[str, ...]:
    """Return the program for an archive of that name; empty for none.

    Raises:
        ImageError: the name's end means nothing, or no such program is installed.

    """
    last = name.rpartition(".")[2]
    programs = COMPRESSORS.get(".tar" if name.endswith(".tar") else ENDINGS.get(last, last))
    if programs is None:
        raise ImageError(
            f"no compression is known by the name: {name}", "end it with .tar, .tar.gz, .tar.zst or .tar.xz"
        )
    if not programs:
        return ()
    found = next((words for words in programs if tools.has(words[0])), None)
    if found is None:
        raise ImageError(f"{programs[-1][0]} is not installed", "install it, or choose another compression")
    return found


def write_tar(root: Root, path: Path, tools: Tools, *, xattrs: bool) -> None:
    """Write an archive of what is in root; what was at path goes when the new one is whole.

    Raises:
        ImageError: tar or the compressor failed.

    """
    packer = compressing(path.name, tools)
    kept = ("--xattrs", "--xattrs-include=user.*") if xattrs else ()
    with (
        new_file(path) as new,
        new.open("wb") as file,
        tools.events.track(f"writing {path.name}", 0) as progress,
    ):
        tools.pipe(
            (*TAR, *kept, "--directory", str(root.path), "."), packer, file, progress, inside=root.inside
        )


def write_squash(root: Root, path: Path, tools: Tools, *, xattrs: bool, shown: str = "") -> None:
    """Write a SquashFS file of what is in root; see write_tar(). shown: its name, for people."""
    with new_file(path) as new, tools.events.track(f"writing {shown or path.name}", 0) as progress:
        words = ("mksquashfs", str(root.path), str(new), *SQUASH, "-xattrs" if xattrs else "-no-xattrs")
        tools.run(words, inside=root.inside, wrong=LEFT_OUT)
        progress(new.stat().st_size)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give the name of a directory to be made, which at the end gets into the place of what is at path."""
    work = Path(tempfile.mkdtemp(prefix=f".{path.name[:200]}.", dir=path.parent))
    try:
        yield work / "new"
        replace(work / "new", path, work / "old")
    finally:
        remove_tree(work)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give an empty file beside path, which gets into its place at the end."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:200]}.", dir=path.parent)
    new = Path(name)
    try:
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.close(descriptor)
        yield new
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


def check_output(
    path: Path, *, directory: bool, clobber: bool, holds: Callable[[Path], bool] = is_image
) -> None:
    """See that an output may be written.

    directory: it will be one, so what is there must be empty, or what `holds` says it holds.

    Raises:
        ImageError: it may not.

    """
    if not path.parent.is_dir():
        raise ImageError(f"no such directory: {path.parent}", f"mkdir -p {path.parent}")
    if not os.path.lexists(path):
        return
    if not clobber:
        raise ImageError(f"exists, not deleting per --no-clobber: {path}", "choose another name")
    if path.is_symlink() or path.is_dir() != directory:
        raise ImageError(
            f"exists, and is no {'directory' if directory else 'file'}: {path}", "choose another name"
        )
    if directory and any(path.iterdir()) and not holds(path):
        raise ImageError(
            f"exists, is not empty, and does not look like an image: {path}", "choose another name"
        )


def make_layer(
    directory: Path, work: Path, events: Events, *, compressed: bool, platform: Platform | None
) -> tuple[Manifest, list[tuple[Descriptor, Path]]]:
    """Return the manifest of a directory as an image of one layer, and its blobs, in files below work.

    platform: what it is for where nothing in it tells.

    Raises:
        ImageError: what the image says of itself makes no sense.

    """
    blob = work / "layer"
    with blob.open("wb") as file, events.track("archiving", 0) as progress:
        if compressed:
            with compressor("gzip", file) as stream:
                diff_id = pack(directory, stream)
        else:
            diff_id = pack(directory, file)
        progress(file.tell())
    layer = Descriptor(
        OCI_LAYER if compressed else PLAIN_LAYER,
        file_digest(blob) if compressed else diff_id,
        blob.stat().st_size,
    )
    said = read_metadata(Rootfs(str(directory)), str(directory), platform)
    raw = config_of(said, [diff_id])
    (work / "config").write_bytes(raw)
    config = Descriptor(OCI_CONFIG, digest_of(raw), len(raw))
    return make_manifest(config, [layer]), [(config, work / "config"), (layer, blob)]


def _umask() -> int:
    """Return this process's umask (proc(5)); to ask umask(2) would be to change it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next((line.split()[1] for line in lines if line.startswith("Umask:")), "022"), 8)
