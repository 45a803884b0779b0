"""ch-image's storage: layers that images share, and what images are made of them.

::

    version               of this layout
    l/NAME/               a layer, unpacked, in overlay form: all that ch-run reads, beside images/*/layers
    layers/KEY.json       what there is to say of it; a layer exists once this does
    images/NAME/          layers: names in l, the lowest first; config.json manifest.json; image.json: Record
    deleted/NAME/         likewise, until gc
    blobs/sha256/HEX      what was downloaded or is to be uploaded; blobs/partial/HEX: the beginning of one
    tmp/ locks/ lock      what commands at work have; tmp/X is dead when nobody holds tmp/X/lock
    cache/                of builds

Everything appears by a rename, whole, and nothing is changed afterwards, so that readers need no lock.
Commands that add hold ``lock`` shared, so that ``gc``, which holds it alone, does not take away what they are
about to name. A killed command leaves files that no record names, and directories in tmp: the next command
removes those, and gc the others.

Records are on the disk before they appear (fsync(2)); layers and blobs need not be. After a power loss, what
makes no sense or has the wrong size is as if it were not there, and made anew. The files of layers are not
looked at again: where power was lost right after a pull, the image is to be deleted, and gc run.

Overlay form: a whiteout is a character device 0:0, which anyone may make since Linux 5.8, and an opaque
directory has user.overlay.opaque=y (Documentation/filesystems/overlayfs.rst).
"""

import base64
import errno
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from chlaunch.errors import StorageError
from chlaunch.image import locks
from chlaunch.image.locks import Patience, Say
from chlaunch.image.manifest import OCI_LAYER, Descriptor
from chlaunch.image.records import Layer, Record, StoredImage, layer_of, load, read, record_of
from chlaunch.image.removal import remove_tree

# As few characters as tell a layer from the others: mount(2) reads one page of options.
SHORT_LEAST, SHORT_MOST = 4, 16


# Seconds.
MOMENT, LONG = 5, 3600

# What rename(2) says where there is a directory of that name.
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)

AREAS = ("images", "deleted")

# renameat2(2): both names are there at any time.
RENAME_EXCHANGE = 2
AT_FDCWD = -100


@dataclass(frozen=True)
class Store:
    """Storage that exists and has this version. path: absolute."""

    path: Path

    @contextmanager
    def using(self, say: Say, why: str, *, alone: bool = False) -> Iterator[None]:
        """Keep gc away while something is added or read; or, alone, everybody who does so."""
        with locks.held(self.path / "lock", why, say, shared=not alone):
            yield

    @contextmanager
    def claim(
        self, digest: str, why: str, say: Say, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Be the only one who downloads and unpacks a blob. Holders must not wait for other blobs.

        Raises:
            StorageError: stopped says so while this waits.

        """
        bucket = digest.partition(":")[2][:2] or "00"
        with locks.held(self.path / "locks" / bucket, why, say, patience=Patience(stopped=stopped)):
            yield

    @contextmanager
    def claim_step(self, key: str, why: str, say: Say) -> Iterator[None]:
        """Be the only one who does a step of a build. Holders may claim blobs, and wait for no other step."""
        with locks.held(self.path / "locks" / f"step-{key[:3]}", why, say):
            yield

    @contextmanager
    def claim_single(self, digest: str, why: str, say: Say) -> Iterator[None]:
        """Be the only one who makes one layer of all of an image's. Holders may claim blobs."""
        with locks.held(self.path / "locks" / f"single-{digest[:3]}", why, say):
            yield

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Give an empty directory that is removed afterwards, at the latest by the next command."""
        path = Path(tempfile.mkdtemp(dir=self.path / "tmp"))
        try:
            with locks.held(path / "lock", "at work", _nothing):
                (path / "work").mkdir()
                yield path / "work"
        finally:
            remove_tree(path)

    def sweep(self) -> None:
        """Remove what killed commands have left in tmp."""
        for path in (self.path / "tmp").iterdir():
            # Files, and what has no lock yet, are a moment old, but clocks differ between nodes.
            patience = MOMENT if (path / "lock").exists() else LONG
            with suppress(StorageError):  # another node may have it open, or another user made it
                if locks.is_free(path / "lock") and _age(path) > patience:
                    remove_tree(path)

    def blob(self, digest: str) -> Path:
        """Return where the blob is, if it is there."""
        return self.path / "blobs" / "sha256" / digest.partition(":")[2]

    def has_blob(self, blob: Descriptor) -> bool:
        """Say whether the blob is there, with the size that it must have."""
        try:
            return self.blob(blob.digest).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def partial(self, digest: str) -> Path:
        """Return where the beginning of a blob is, which its claimant may go on with."""
        return self.path / "blobs" / "partial" / digest.partition(":")[2]

    def layer(self, key: str) -> Layer | None:
        """Return the layer; None if there is none."""
        layer = layer_of(load(self.path / "layers" / f"{key}.json") or {})
        return layer if layer is not None and self.tree(layer).is_dir() else None

    def tree(self, layer: Layer) -> Path:
        """Return where a layer is unpacked."""
        return self.path / "l" / layer.short

    def add_layer(self, tree: Path, layer: Layer) -> Layer:
        """Take a directory of work() in as a layer; return it with its short name. That it is there is fine.

        Raises:
            StorageError: no name could be found for it.

        """
        known = self.layer(layer.key)
        if known is not None:
            return known
        for short in _shorts(layer.key):
            place = self.path / "l" / short
            if not place.exists():
                try:
                    tree.rename(place)
                except OSError as error:
                    if error.errno not in TAKEN:
                        raise
                    continue  # somebody was faster
                break
        else:
            raise StorageError(f"can't name layer: {layer.key}", "ch-image gc")
        named = Layer(**{**asdict(layer), "short": short})
        self.write(self.path / "layers" / f"{layer.key}.json", json.dumps(asdict(named)).encode())
        return named

    def archive(self, key: str) -> tuple[Descriptor, str] | None:
        """Return the blob that a layer was made into and its diff ID; None if there is none."""
        said = load(self.path / "layers" / f"{key}.archive.json") or {}
        digest, size, diff_id = said.get("digest"), said.get("size"), said.get("diff_id")
        if not (isinstance(digest, str) and isinstance(size, int) and isinstance(diff_id, str)):
            return None
        blob = Descriptor(OCI_LAYER, digest, size)
        return (blob, diff_id) if self.has_blob(blob) else None

    def set_archive(self, key: str, blob: Descriptor, diff_id: str) -> None:
        """Remember which blob a layer was made into."""
        said = {"digest": blob.digest, "size": blob.size, "diff_id": diff_id}
        self.write(self.path / "layers" / f"{key}.archive.json", json.dumps(said).encode())

    def write(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        """Write a file of the storage, so that it is there whole or not at all.

        durable: also after a crash of the machine; where not, it may then be empty.
        """
        descriptor, name = tempfile.mkstemp(dir=self.path / "tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            Path(name).rename(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def image(self, name: str, area: str = "images") -> StoredImage | None:
        """Return the image of that name; None if there is none, or it is damaged. area: images or deleted."""
        path = self.path / area / file_name(name)
        record = record_of(load(path / "image.json") or {})
        if record is None:
            return None
        layers = [self.layer(key) for key in (*record.keys, *((record.top,) if record.top else ()))]
        found = tuple(layer for layer in layers if layer is not None)
        if len(found) != len(layers):
            return None
        return StoredImage(name, path, record, found, tuple(self.tree(layer) for layer in found))

    def shorts(self) -> set[str]:
        """Return the names of the layers that any image has, also a deleted one, or one not understood here.

        Raises:
            StorageError: one can't be read.

        """
        lists = [path / "layers" for area in AREAS for path in (self.path / area).iterdir()]
        return {short for path in lists for short in read(path).decode(errors="replace").split("\n") if short}

    def names(self, area: str = "images") -> list[str]:
        """Return the names of all images, damaged ones too."""
        return sorted(word(path.name) for path in (self.path / area).iterdir())

    def images(self, area: str = "images") -> list[StoredImage]:
        """Return all images that are not damaged, by name."""
        return [image for name in self.names(area) if (image := self.image(name, area)) is not None]

    def add_image(
        self, name: str, record: Record, layers: Sequence[Layer], config: bytes, manifest: bytes
    ) -> StoredImage:
        """Make an image of layers, or replace the one of that name. Layers: all, the lowest first.

        One that is there and the same is left alone.

        Raises:
            StorageError: it can't be written.

        """
        files = {
            "layers": "".join(f"{layer.short}\n" for layer in layers).encode(),
            "config.json": config,
            "manifest.json": manifest,
            "image.json": json.dumps(asdict(record)).encode(),
        }
        known = self.image(name)
        if known is not None and all(read(known.path / file) == files[file] for file in files):
            return known
        with self.work() as work:
            new = work / "image"
            new.mkdir(mode=0o755)
            for file, content in files.items():
                if content:
                    self.write(new / file, content)
            place = self.path / "images" / file_name(name)
            replace(new, place, work / "old")
        image = self.image(name)
        if image is None:
            raise StorageError(
                f"image has gone as soon as it was made: {name}", "did another command remove it?"
            )
        return image


def file_name(name: str) -> str:
    """Return an image's name as a file's (runtime/store.c)."""
    return name.replace("/", "%").replace(":", "+")


def word(name: str) -> str:
    """Return a file's name as an image's."""
    return name.replace("%", "/").replace("+", ":")


def replace(new: Path, place: Path, old: Path) -> None:
    """Put a directory where another may be, so that there always is one; the other is then at old.

    Where renameat2(2) can't exchange two directories (NFS), there is a moment without.
    """
    try:
        new.rename(place)
    except OSError:
        import ctypes  # noqa: PLC0415  rarely needed, and 4 ms to load

        libc = ctypes.CDLL(None, use_errno=True)
        swapped = libc.renameat2(
            AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(place), ctypes.c_uint(RENAME_EXCHANGE)
        )
        if swapped != 0:
            place.rename(old)
            try:
                new.rename(place)
            except OSError:
                old.rename(place)
                raise


def _shorts(key: str) -> Iterator[str]:
    """Give names for a layer, the best first."""
    digits = base64.b32encode(hashlib.sha256(key.encode()).digest()).decode().lower()
    for length in range(SHORT_LEAST, SHORT_MOST + 1):
        yield digits[:length]


def _age(path: Path) -> float:
    """Return for how many seconds a file has been as it is; 0 if it has gone meanwhile."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0


def _nothing(_line: str) -> None:
    """Say nothing."""
