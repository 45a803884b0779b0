"""What is in storage, what it takes, and how it leaves: delete, undelete, gc, reset."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from chlaunch.errors import ImageError, StorageError
from chlaunch.image.build import steps
from chlaunch.image.locks import Say
from chlaunch.image.manifest import Manifest, parse
from chlaunch.image.records import StoredImage
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store, file_name, word


@dataclass(frozen=True)
class Use:
    """What an image takes, in bytes. own: of layers that no other image has."""

    image: StoredImage
    size: int
    own: int


@dataclass(frozen=True)
class Room:
    """What storage takes, in bytes of files. idle: of what no image needs, also no deleted one."""

    layers: int
    blobs: int
    deleted: int
    idle: int
    free: int


def usage(store: Store, area: str = "images") -> list[Use]:
    """Return the images of storage with what they take; area: or the deleted ones."""
    images = store.images(area)
    users: dict[str, int] = {}
    for image in images:
        for key in {layer.key for layer in image.layers}:
            users[key] = users.get(key, 0) + 1
    return [
        Use(
            image,
            sum(layer.size for layer in image.layers),
            sum(layer.size for layer in image.layers if users[layer.key] == 1),
        )
        for image in images
    ]


def delete(store: Store, globs: tuple[str, ...], say: Say) -> list[str]:
    """Move images out of the way, and return their names; undelete() brings them back until gc.

    globs: as shells have them (fnmatch(3)), which match names as they are listed.

    Raises:
        ImageError: there is no image for one of them; then nothing is deleted.

    """
    names = store.names()
    chosen: list[str] = []
    for glob in globs:
        found = [name for name in names if fnmatchcase(name, word(glob))]
        if not found:
            raise ImageError(f"no image matches: {glob}", "ch-image list")
        chosen.extend(name for name in found if name not in chosen)
    with store.using(say, "deleting"), store.work() as work:
        for number, name in enumerate(chosen):
            deleted = store.path / "deleted" / file_name(name)
            with suppress(FileNotFoundError):
                deleted.rename(work / str(number))
            with suppress(FileNotFoundError):  # another command was faster
                (store.path / "images" / file_name(name)).rename(deleted)
    return chosen


def undelete(store: Store, name: str, say: Say) -> None:
    """Bring a deleted image back.

    Raises:
        ImageError: there is none, or there is an image of that name.

    """
    with store.using(say, f"undeleting {name}"):
        if store.image(name, "deleted") is None:
            raise ImageError(f"no deleted image: {name}", "ch-image list --undeletable")
        target = store.path / "images" / file_name(name)
        try:
            (store.path / "deleted" / file_name(name)).rename(target)
        except OSError as error:
            if not target.exists():
                raise
            raise ImageError(f"image exists: {name}", f"first: ch-image delete {name}") from error


def collect(store: Store, say: Say) -> int:
    """Remove what neither images nor builds need, and deleted images; return how many bytes that was.

    Waits until no other command adds to storage or reads from it.
    """
    with store.using(say, "removing what is not needed", alone=True):
        for path in (store.path / "deleted").iterdir():
            remove_tree(path)
        freed = sum(_size(path) for path in _idle(store))
        # Records first: a layer without one is nobody's.
        for path in sorted(_idle(store), key=lambda path: path.parent.name != "layers"):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()
        return freed


def reset(store: Store, say: Say) -> None:
    """Remove everything.

    Raises:
        StorageError: something can't be removed.

    """
    with store.using(say, "removing everything", alone=True):
        try:
            # Without it, the next command makes what is missing. The lock stays: others may wait for it.
            (store.path / "version").unlink(missing_ok=True)
            for name in ("images", "layers", "deleted", "cache", "l", "blobs", "tmp", "locks"):
                remove_tree(store.path / name)
        except OSError as error:
            raise StorageError(
                f"can't remove: {error.filename}: {os.strerror(error.errno or 0)}", "remove it by hand"
            ) from error


def room(store: Store) -> Room:
    """Return what storage takes."""
    idle = {path: _size(path) for path in _idle(store)}
    kept = {layer.short: layer.size for image in store.images("deleted") for layer in image.layers}
    live = {layer.short: layer.size for image in store.images() for layer in image.layers}
    return Room(
        sum(live.values()),
        sum(path.stat().st_size for path in (store.path / "blobs" / "sha256").iterdir()),
        sum(size for short, size in kept.items() if short not in live),
        sum(idle.values()),
        shutil.disk_usage(store.path).free,
    )


def _idle(store: Store) -> Iterator[Path]:
    """Give the files and directories of storage that no image needs, no deleted one, and no build."""
    images = [*store.images(), *store.images("deleted")]
    built = [layer for step in steps.all_steps(store) if (layer := store.layer(step.layer)) is not None]
    keys = {layer.key for image in images for layer in image.layers} | {layer.key for layer in built}
    shorts = store.shorts() | {layer.short for layer in built}
    blobs = {digest.partition(":")[2] for image in images for digest in _digests(store, image)}
    for path in (store.path / "layers").iterdir():
        key = path.name.partition(".")[0]
        layer = None if key in keys else store.layer(key)
        if key not in keys and (layer is None or layer.short not in shorts):
            yield path
    for path in (store.path / "l").iterdir():
        if path.name not in shorts:
            yield path
    for path in (store.path / "blobs" / "sha256").iterdir():
        if path.name not in blobs:
            yield path
    yield from (store.path / "blobs" / "partial").iterdir()


def _digests(store: Store, image: StoredImage) -> Iterator[str]:
    """Give the digests of the blobs that an image is pushed with."""
    if image.manifest:
        with suppress(ImageError):
            parsed = parse(image.manifest, "", image.name)
            if isinstance(parsed, Manifest):
                yield from (blob.digest for blob in parsed.layers)
    for layer in image.layers:
        archive = store.archive(layer.key)
        if archive is not None:
            yield archive[0].digest


def _size(path: Path) -> int:
    """Return how many bytes the files below path have; what is linked twice counts twice."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum(Path(top, name).lstat().st_size for top, _, names in os.walk(path) for name in names)
