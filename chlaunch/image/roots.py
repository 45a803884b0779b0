"""An image's root file system as a directory: of archives, image files and layers, or mounted from storage.

What was unpacked belongs to the user: no devices, no set-id bits, and all of it can be read and removed.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from chlaunch.errors import ImageError
from chlaunch.image import flatten, top
from chlaunch.image.events import Events
from chlaunch.image.files import open_regular
from chlaunch.image.finding import Wanted, find
from chlaunch.image.manifest import Descriptor, Progress, Source
from chlaunch.image.metadata import metadata_files
from chlaunch.image.pull import JOBS, fetch_blob
from chlaunch.image.records import StoredImage
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store
from chlaunch.image.tools import Tools
from chlaunch.image.unpack import Limits, Unpacked, settle, unpack
from chlaunch.rootfs import squashfs_offset
from chlaunch.trees import is_whiteout

# Directories of a root file system: an archive that has one of them alone is no archive of a directory.
USUAL = frozenset(
    (*top.DIRECTORIES, "boot", "ch", "home", "lib", "lib64", "opt", "root", "run", "sbin", "srv", "var")
)

# By these an image is known from other directories, as Charliecloud knows it.
MARKS = ("bin", "dev", "usr")

# $0: the storage, relative to which layers are named; $1: options; $2: where to mount. The rest is a command.
MOUNT = 'cd -- "$0" && mount -t overlay -o "$1" none "$2" && cd / && shift 2 && exec "$@"'

# Of one page, less what mount(8) adds.
OPTIONS_MOST = 4000


SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True)
class Root:
    """A directory to read. inside: words that go before a command, which then finds the files there."""

    path: Path
    inside: tuple[str, ...] = ()


def from_tar(path: Path, directory: Path, limits: Limits, events: Events) -> Unpacked:
    """Unpack an archive into a directory that is not there yet.

    If all that the archive has is in one directory, that is taken for the root.

    Raises:
        ImageError: the archive can't be read, is damaged or hostile.

    """
    with open_regular(path) as file, events.track(f"unpacking {path.name}", path.stat().st_size) as progress:
        return from_stream(cast("BinaryIO", Counted(file, progress)), directory, limits, str(path), events)


def from_stream(stream: BinaryIO, directory: Path, limits: Limits, shown: str, events: Events) -> Unpacked:
    """Unpack an archive's stream into a directory that is not there yet; see from_tar()."""
    work = directory.with_name(f"{directory.name}.all")
    work.mkdir(mode=0o755)
    unpacked = unpack(stream, work, limits, overlay=False, shown=shown)
    settle(work, unpacked, ())
    entries = list(work.iterdir())
    if not entries:
        raise ImageError(f"nothing in the archive: {shown}", "is it an image?")
    if len(entries) == 1 and _is_top(entries[0]):
        entries[0].rename(directory)
        work.rmdir()
    else:
        work.rename(directory)
    _tell(events, shown, unpacked.dropped)
    return unpacked


def from_squash(path: Path, directory: Path, tools: Tools, *, xattrs: bool) -> None:
    """Unpack a SquashFS, also one in a SIF file, into a directory that is not there yet.

    Raises:
        ImageError: there is none in it, or unsquashfs failed.

    """
    options = ["-no-progress", "-quiet", "-user-xattrs" if xattrs else "-no-xattrs"]
    offset = squashfs_offset(str(path))
    words = ["unsquashfs", *options, "-offset", str(offset), "-dest", str(directory), str(path)]
    # A user's umask is taken off the modes that files have. The directory above is closed to others.
    tools.run(words, fine=(0, 2), umask=0)
    _tell(tools.events, str(path), make_ours(directory))


def from_source(source: Source, wanted: Wanted, directory: Path, events: Events) -> None:
    """Unpack an image's layers one upon another into a directory that is not there yet, with its /ch.

    Raises:
        ImageError: there is no such image, or it is damaged.

    """
    found = find(source, wanted)
    directory.mkdir(mode=0o755)
    with ExitStack() as stack:
        opened = _blobs(source, [blob for blob, _ in found.layers], directory, events, stack)
        for number, (blob, diff_id) in enumerate(found.layers, 1):
            layer = directory.with_name(f"{directory.name}.layer")
            layer.mkdir(mode=0o755)
            shown = f"{wanted.reference}: layer {number} of {len(found.layers)}"
            # What comes out is checked, and so need not be what goes in.
            with next(opened) as stream, events.track(f"unpacking {shown}", blob.size) as progress:
                counted = cast("BinaryIO", Counted(stream, progress))
                unpacked = unpack(counted, layer, wanted.limits, overlay=False, shown=shown)
            if unpacked.diff_id != diff_id:
                raise ImageError(
                    f"{shown} is {unpacked.diff_id}, not {diff_id}", "the image is damaged: get it again"
                )
            settle(layer, unpacked, (directory,))
            flatten.put_upon(directory, layer, unpacked)
            remove_tree(layer)
            _tell(events, shown, unpacked.dropped)
    top.write_files(directory, metadata_files(found.config) if found.config.said.get("config") else {})


def _blobs(
    source: Source, blobs: Sequence[Descriptor], directory: Path, events: Events, stack: ExitStack
) -> Iterator[AbstractContextManager[BinaryIO]]:
    """Give the blobs to read, one after another; those of a registry are fetched meanwhile, some at once."""
    if not hasattr(source, "download"):
        yield from (source.blob(blob) for blob in blobs)
        return
    pool = stack.enter_context(ThreadPoolExecutor(JOBS))
    stack.callback(pool.shutdown, cancel_futures=True)

    def fetch(number: int, blob: Descriptor) -> Path:
        path = directory.with_name(f"{directory.name}.{number}")
        with events.track(f"layer {blob.digest.partition(':')[2][:12]}", blob.size) as progress:
            fetch_blob(source, blob, path, progress)
        return path

    for fetched in [pool.submit(fetch, number, blob) for number, blob in enumerate(blobs)]:
        path = fetched.result()
        yield path.open("rb")
        path.unlink()


@contextmanager
def mounted(store: Store, image: StoredImage, temporary: Path, tools: Tools) -> Iterator[Root]:
    """Give an image in storage: mounted, where users may mount overlays, else as a copy.

    Raises:
        ImageError: it can't be copied.

    """
    with store.using(tools.events.say, f"converting {image.name}"), store.work() as work:
        for name in ("trial", "empty", "root"):
            (work / name).mkdir()
        why = flatten.reason(work / "trial", len(image.trees))
        # A layer alone is no overlay, so there is an empty one below.
        layers = [str(tree.relative_to(store.path)) for tree in (*reversed(image.trees), work / "empty")]
        options = f"ro,userxattr,lowerdir={':'.join(layers)}"
        if not why and len(options) < OPTIONS_MOST:
            unshare = ("unshare", "--user", "--map-root-user", "--mount")
            # mount(8) of util-linux 2.39 and newer hands options to fsconfig(2), which takes 256 bytes.
            script = ("env", "LIBMOUNT_FORCE_MOUNT2=always", "sh", "-c", MOUNT)
            yield Root(work / "root", (*unshare, *script, str(store.path), options, str(work / "root")))
            return
        tools.events.warn(f"layers are copied into one directory: {why or 'they are too many for a mount'}")
        yield Root(merged(image.trees, temporary, tools))


def _is_top(path: Path) -> bool:
    """Say whether what an archive has alone is the directory that was archived."""
    return path.is_dir() and not path.is_symlink() and path.name not in USUAL


def is_image(directory: Path) -> bool:
    """Say whether a directory is an unpacked image, by the look of it."""
    return all(os.path.lexists(directory / name) for name in MARKS)


def make_ours(directory: Path) -> dict[str, int]:
    """Make a tree of ours what unpack() would have made of it; return what was dropped, by kind."""
    dropped: Counter[str] = Counter()
    directory.chmod(stat.S_IMODE(directory.lstat().st_mode) | 0o700)
    for _, directories, names, descriptor in os.fwalk(directory):
        for name in (".", *directories, *names):
            _own(name, descriptor, dropped)
    return dropped


def drop_attributes(directory: Path) -> None:
    """Remove all user attributes from a tree of ours."""
    for above, directories, names in os.walk(directory):
        for path in (above, *(f"{above}/{name}" for name in (*directories, *names))):
            for attribute in os.listxattr(path, follow_symlinks=False):
                if attribute.startswith("user."):
                    os.removexattr(path, attribute, follow_symlinks=False)


def _own(name: str, above: int, dropped: Counter[str]) -> None:
    """Make one file ours, before it is looked into."""
    status = os.stat(name, dir_fd=above, follow_symlinks=False)
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, os.getegid()):
        os.chown(name, 0, os.getegid(), dir_fd=above, follow_symlinks=False)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        times = os.fstat(above)
        os.unlink(name, dir_fd=above)
        os.utime(above, ns=(times.st_atime_ns, times.st_mtime_ns))
        dropped["device"] += 1
        return
    mode = stat.S_IMODE(status.st_mode)
    wanted = mode & ~SET_ID | (0o700 if stat.S_ISDIR(status.st_mode) else 0o600)
    if mode & SET_ID:
        dropped["set-id bit"] += 1
    if wanted != mode and not stat.S_ISLNK(status.st_mode):
        os.chmod(name, wanted, dir_fd=above)


def merged(trees: Sequence[Path], temporary: Path, tools: Tools) -> Path:
    """Return a directory with what layers show, the lowest given first, copied.

    Raises:
        ImageError: something can't be copied.

    """
    merged = temporary / "merged"
    merged.mkdir(mode=0o755)
    for number, tree in enumerate(trees):
        copy = temporary / str(number)
        copy_tree(Root(tree), copy, tools, xattrs=True)
        gone: list[str] = []
        opaque: list[str] = []
        for above, _, names, descriptor in os.fwalk(copy):
            inner = os.path.relpath(above, copy)
            if _take_attribute(descriptor):
                opaque.append("" if inner == "." else inner)
            for name in names:
                if is_whiteout(os.stat(name, dir_fd=descriptor, follow_symlinks=False)):
                    os.unlink(name, dir_fd=descriptor)
                    gone.append(os.path.normpath(f"{inner}/{name}"))
        flatten.put_upon(merged, copy, Unpacked("", 0, 0, {}, tuple(gone), tuple(opaque), (), ()))
        remove_tree(copy)
    return merged


def copy_tree(root: Root, directory: Path, tools: Tools, *, xattrs: bool) -> None:
    """Copy all that is in a tree to a directory that is not there yet; with holes, hard links and times.

    Raises:
        ImageError: something can't be copied.

    """
    directory.mkdir(mode=0o755)
    keep = "--preserve=mode,timestamps,links,xattr" if xattrs else "--preserve=mode,timestamps,links"
    tools.run(
        ["cp", "--recursive", "--no-dereference", "--reflink=auto", keep, f"{root.path}/.", str(directory)],
        inside=root.inside,
    )


def _take_attribute(descriptor: int) -> bool:
    """Say whether a directory is opaque; it is not any more."""
    try:
        os.removexattr(descriptor, "user.overlay.opaque")
    except OSError:
        return False
    return True


def _tell(events: Events, shown: str, dropped: Mapping[str, int]) -> None:
    """Tell what was dropped."""
    if dropped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
        events.say(f"{shown}: dropped: {kinds}")


@dataclass(frozen=True)
class Counted:
    """A stream that tells how much was read of it."""

    stream: BinaryIO
    progress: Progress

    def read(self, size: int = -1) -> bytes:
        """Read."""
        found = self.stream.read(size)
        self.progress(len(found))
        return found
