"""From anywhere into storage: find the image for a platform, get the layers that are not there, keep it."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chlaunch.errors import ImageError, StorageError
from chlaunch.image import flatten, top
from chlaunch.image.events import Events
from chlaunch.image.finding import Found, Wanted, check_platform, find
from chlaunch.image.manifest import (
    Descriptor,
    Progress,
    Source,
    digest_of,
)
from chlaunch.image.records import SINGLE, Layer, Record, StoredImage
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store
from chlaunch.image.unpack import Unpacked, settle, unpack

# Layers at once. More would not make two processors faster, and registries count connections.
JOBS = 4

READ_SIZE = 1 << 20

FULL = (errno.ENOSPC, errno.EDQUOT)


def pull(store: Store, source: Source, wanted: Wanted, events: Events) -> StoredImage:
    """Return the image in storage, with everything that was not there downloaded.

    Raises:
        ImageError: there is no such image, or it is damaged.
        RegistryError: the source failed.
        StorageError: storage is full or can't be written.

    """
    found = find(source, wanted)
    check_platform(found.config, wanted, events)
    try:
        with store.using(events.say, f"pulling {wanted.name}"):
            return keep(store, source, wanted, found, events)
    except OSError as error:
        raise full(error, store.path) from error


def keep(store: Store, source: Source, wanted: Wanted, found: Found, events: Events) -> StoredImage:
    """Return the image in storage, made of what was found; storage is in use by the caller."""
    with store.work() as work:
        (work / "trial").mkdir()
        rows = found.layers[: wanted.last]
        why = flatten.reason(work / "trial", len(rows))
        fetch = Fetch(store, source, wanted, events, work)
        if why:
            events.warn(f"layers are copied into one directory: {why}")
            layers = [fetch.flat(rows)]
        else:
            layers = fetch.stacked(rows)
        trees = [store.tree(layer) for layer in layers]
        ours = top.make(store, work / "top", found.config, trees)
    record = Record(
        wanted.reference,
        found.manifest.digest if wanted.last is None else "",
        str(found.config.platform),
        time.time(),
        tuple(layer.key for layer in layers),
        ours.key,
        not why and wanted.last is None,
    )
    dropped = _sum(layers)
    if dropped:
        events.say(f"left out: {dropped}")
    return store.add_image(wanted.name, record, (*layers, ours), found.config.raw, found.manifest.raw)


@dataclass(frozen=True)
class Fetch:
    """Layers on their way into storage. work: a directory for what is not whole yet.

    stopped: one failed, or the user wants no more; then the others end at their next piece.
    """

    store: Store
    source: Source
    wanted: Wanted
    events: Events
    work: Path
    stopped: threading.Event = field(default_factory=threading.Event)

    def stacked(self, rows: Sequence[tuple[Descriptor, str]]) -> list[Layer]:
        """Return the layers, the lowest first; those that are not in storage are fetched, several at once."""
        chains = chain_ids([diff_id for _, diff_id in rows])
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(JOBS))
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            futures = [
                pool.submit(self._one, number, blob, diff_id, chain)
                for number, ((blob, diff_id), chain) in enumerate(zip(rows, chains, strict=True))
            ]
            stack.callback(self.stopped.set)
            done: list[Layer] = []
            for number, (future, chain) in enumerate(zip(futures, chains, strict=True)):
                layer = future.result()
                if isinstance(layer, Unpacked):
                    below = [self.store.tree(known) for known in reversed(done)]
                    tree = self.work / str(number)
                    settle(tree, layer, below)
                    layer = self.store.add_layer(tree, _layer(chain, layer))
                done.append(layer)
        return done

    def flat(self, rows: Sequence[tuple[Descriptor, str]]) -> Layer:
        """Return one layer that has the files of all."""
        chain = chain_ids([diff_id for _, diff_id in rows])[-1] if rows else "none"
        why = f"fetching {self.wanted.reference}"
        with self.store.claim_single(chain.rpartition("-")[2], why, self.events.say):
            return self._flat(f"{SINGLE}-{chain}", rows)

    def _flat(self, key: str, rows: Sequence[tuple[Descriptor, str]]) -> Layer:
        """Return the layer of that key; nobody else makes it meanwhile."""
        known = self.store.layer(key)
        if known is not None:
            for blob, _ in rows:
                with self._claimed(blob):
                    self.download(blob)
            return known
        tree = self.work / "flat"
        tree.mkdir(mode=0o755)
        size = members = 0
        dropped: dict[str, int] = {}
        for number, (blob, diff_id) in enumerate(rows):
            with self._claimed(blob):
                unpacked = self._fetched(number, blob, diff_id, overlay=False)
            settle(self.work / str(number), unpacked, [tree])
            flatten.put_upon(tree, self.work / str(number), unpacked)
            size, members = size + unpacked.size, members + unpacked.members
            for kind, count in unpacked.dropped.items():
                dropped[kind] = dropped.get(kind, 0) + count
        top.complete(tree)
        return self.store.add_layer(tree, Layer(key, "", "", size, members, dropped))

    def _claimed(self, blob: Descriptor) -> AbstractContextManager[None]:
        """Be the only one who downloads and unpacks a blob."""
        why = f"fetching layer {_brief(blob.digest)}"
        return self.store.claim(blob.digest, why, self.events.say, self.stopped.is_set)

    def download(self, blob: Descriptor) -> Path:
        """Return where a blob is in storage, downloaded and checked if it was not there. It is claimed."""
        path = self.store.blob(blob.digest)
        if self.wanted.fresh:
            path.unlink(missing_ok=True)
        if not self.store.has_blob(blob):
            partial = self.store.partial(blob.digest)
            try:
                with self.events.track(f"layer {_brief(blob.digest)}", blob.size) as progress:
                    fetch_blob(self.source, blob, partial, self._until_stopped(progress))
                partial.rename(path)
            except (OSError, StorageError):
                partial.unlink(missing_ok=True)  # it would only keep the disk full
                raise
        return path

    def _until_stopped(self, progress: Progress) -> Progress:
        """Return a progress that ends what reports to it once all is to end."""

        def told(count: int) -> None:
            if self.stopped.is_set():
                raise ImageError(f"{self.wanted.reference}: stopped")
            progress(count)

        return told

    def _one(self, number: int, blob: Descriptor, diff_id: str, chain: str) -> Layer | Unpacked:
        """Return a layer, or what was unpacked if that depends on the layers below.

        It may be in storage under either key. Whoever has the claim waits for nobody.
        """
        key = _key(diff_id)
        with self._claimed(blob):
            known = self.store.layer(key) or self.store.layer(chain)
            if known is not None:
                self.download(blob)
                return known
            unpacked = self._fetched(number, blob, diff_id, overlay=True)
            if unpacked.links_below or unpacked.implied:
                return unpacked
            return self.store.add_layer(self.work / str(number), _layer(key, unpacked))

    def _fetched(self, number: int, blob: Descriptor, diff_id: str, *, overlay: bool) -> Unpacked:
        """Unpack a blob, which is downloaded if it was not there, and again if what was there is damaged."""
        was_there = self.store.blob(blob.digest).exists()
        self.download(blob)
        try:
            return self._unpack(number, blob, diff_id, overlay=overlay)
        except ImageError:
            if not was_there:
                raise
        # A machine lost power, or a disk is bad.
        self.store.blob(blob.digest).unlink()
        remove_tree(self.work / str(number))
        self.download(blob)
        return self._unpack(number, blob, diff_id, overlay=overlay)

    def _unpack(self, number: int, blob: Descriptor, diff_id: str, *, overlay: bool) -> Unpacked:
        """Unpack a blob of storage into a directory of work."""
        tree = self.work / str(number)
        tree.mkdir(mode=0o755)
        shown = f"{self.wanted.reference}: layer {_brief(blob.digest)}"
        with self.store.blob(blob.digest).open("rb") as stream:
            unpacked = unpack(stream, tree, self.wanted.limits, overlay=overlay, shown=shown)
        if unpacked.diff_id != diff_id:
            raise ImageError(
                f"{shown}: unpacked it is {unpacked.diff_id}, not {diff_id} as its configuration says",
                "the image is damaged: push it again",
            )
        return unpacked


def fetch_blob(source: Source, blob: Descriptor, path: Path, progress: Progress) -> None:
    """Write a blob to a file, whose beginning may be there already.

    Raises:
        ImageError: it is not what its digest says.
        RegistryError: the source failed.

    """
    download = getattr(source, "download", None)
    if download is not None:  # which can go on where a connection broke
        download(blob, path, progress)
        return
    sha = hashlib.sha256()
    left = blob.size
    with source.blob(blob) as stream, path.open("wb") as file:
        while chunk := stream.read(min(READ_SIZE, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            sha.update(chunk)
            file.write(chunk)
            progress(len(chunk))
    if left or f"sha256:{sha.hexdigest()}" != blob.digest:
        path.unlink()
        raise ImageError(f"a blob is not what its digest says: {blob.digest}", "the source is damaged")


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the keys of layers that depend on what is below them (OCI image spec, "Layer ChainID")."""
    chain = ""
    keys = []
    for diff_id in diff_ids:
        chain = digest_of(f"{chain} {diff_id}".encode()) if chain else diff_id
        keys.append(f"chain-{chain.partition(':')[2]}")
    return keys


def full(error: OSError, path: Path) -> StorageError:
    """Return the failure for an error of the file system that storage is on."""
    why = os.strerror(error.errno or 0)
    if error.errno in FULL:
        return StorageError(
            f"no room in storage: {path}: {why}", "ch-image gc, or choose another place with --storage"
        )
    hint = "it is on a read-only disk; choose another with --storage" if error.errno == errno.EROFS else ""
    return StorageError(f"can't write storage: {error.filename or path}: {why}", hint)


def _key(diff_id: str) -> str:
    """Return the key of a layer that depends on nothing."""
    return f"layer-{diff_id.partition(':')[2]}"


def _layer(key: str, unpacked: Unpacked) -> Layer:
    """Return what is kept of a layer."""
    return Layer(key, "", unpacked.diff_id, unpacked.size, unpacked.members, dict(unpacked.dropped))


def _brief(digest: str) -> str:
    """Return a digest for people."""
    return digest.partition(":")[2][:12]


def _sum(layers: Sequence[Layer]) -> str:
    """Return what was dropped, for people."""
    total: Mapping[str, int] = {}
    for layer in layers:
        total = {kind: total.get(kind, 0) + layer.dropped.get(kind, 0) for kind in {*total, *layer.dropped}}
    return ", ".join(f"{count} {kind}" for kind, count in sorted(total.items()))
