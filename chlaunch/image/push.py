"""From storage to anywhere: the layers that are not there, the configuration, the manifest.

An image that was pulled goes as it came, byte by byte. What has no archive (it was imported, built, or made
one copy of all layers) gets one, which is kept: the same layer has the same digest again.
"""

import hashlib
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ImageError
from chlaunch.image.compress import compressor
from chlaunch.image.events import Events
from chlaunch.image.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    Descriptor,
    Manifest,
    Sink,
    digest_of,
    make_manifest,
    parse,
    parse_config,
)
from chlaunch.image.metadata import config_of, read_metadata
from chlaunch.image.pack import pack
from chlaunch.image.records import Layer, StoredImage
from chlaunch.image.store import Store
from chlaunch.rootfs import open_image

JOBS = 4


@dataclass(frozen=True)
class Goal:
    """Where an image goes. what: under which tag; empty for its digest alone.

    origin: a repository of the same registry that may have its layers already.
    """

    sink: Sink
    what: str
    origin: str = ""


def push(store: Store, image: StoredImage, goal: Goal, events: Events) -> Manifest:
    """Put an image where it shall go; return its manifest.

    Raises:
        ImageError: it is damaged.
        RegistryError: the sink failed.

    """
    with store.using(events.say, f"pushing {image.name}"), store.work() as work:
        manifest, config = prepared(store, image, events)
        files = {blob.digest: (blob, store.blob(blob.digest)) for blob in manifest.layers}
        (work / "config").write_bytes(config)
        _put_all(goal, list(files.values()), (manifest.config, work / "config"), events)
        goal.sink.put_manifest(goal.what or manifest.digest, manifest.raw, manifest.media_type)
        return manifest


def push_directory(store: Store, directory: Path, goal: Goal, events: Events) -> Manifest:
    """Put the image in a directory where it shall go, as one layer; return its manifest.

    Raises:
        ImageError: it is no image.
        RegistryError: the sink failed.

    """
    rootfs = open_image(f"{directory.absolute()}/", "")
    said = read_metadata(rootfs, str(directory))
    with store.work() as work:
        blob, diff_id = _archive(directory, work / "layer", str(directory), events)
        config = config_of(said, [diff_id])
        (work / "config").write_bytes(config)
        manifest = make_manifest(Descriptor(OCI_CONFIG, digest_of(config), len(config)), [blob])
        _put_all(goal, [(blob, work / "layer")], (manifest.config, work / "config"), events)
        goal.sink.put_manifest(goal.what or manifest.digest, manifest.raw, manifest.media_type)
        return manifest


def prepared(store: Store, image: StoredImage, events: Events) -> tuple[Manifest, bytes]:
    """Return an image's manifest and configuration, with archives of all its layers in storage."""
    if image.manifest and image.record.whole:
        known = parse(image.manifest, "", image.name)
        if isinstance(known, Manifest) and all(map(store.has_blob, known.layers)):
            return known, image.config
    layers = [layer for layer in image.layers if layer.key != image.record.top]
    rows = [_archived(store, layer, events) for layer in layers]
    if not image.config:
        raise ImageError(
            f"can't push image: {image.name}: it has no configuration", "pull or import it again"
        )
    config = config_of(parse_config(image.config, image.name), [diff_id for _, diff_id in rows])
    descriptor = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    return make_manifest(descriptor, [blob for blob, _ in rows]), config


def _put_all(
    goal: Goal, layers: list[tuple[Descriptor, Path]], config: tuple[Descriptor, Path], events: Events
) -> None:
    """Put blobs where they are not there yet, several at once if the sink can. Where one fails, all end."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(JOBS if goal.sink.parallel else 1))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        stopped = threading.Event()
        futures = [pool.submit(_put, goal, blob, path, events, stopped) for blob, path in layers]
        stack.callback(stopped.set)
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    if not goal.sink.has_blob(config[0]):
        goal.sink.put_blob(*config, lambda _bytes: None)


def _put(goal: Goal, blob: Descriptor, path: Path, events: Events, stopped: threading.Event) -> None:
    """Put a blob where it is not there yet; end at the next piece of it once stopped is set."""
    shown = f"layer {blob.digest.partition(':')[2][:12]}"
    if goal.sink.has_blob(blob):
        events.say(f"{shown}: is there already")
        return
    if goal.origin and goal.sink.mount(blob, goal.origin):
        events.say(f"{shown}: taken from {goal.origin}")
        return
    with events.track(shown, blob.size) as progress:

        def told(count: int) -> None:
            if stopped.is_set():
                raise ImageError(f"{shown}: stopped")
            progress(count)

        goal.sink.put_blob(blob, path, told)


def _archived(store: Store, layer: Layer, events: Events) -> tuple[Descriptor, str]:
    """Return a layer's blob, made if it has none, and its diff ID."""
    known = store.archive(layer.key)
    if known is not None:
        return known
    with store.work() as work:
        blob, diff_id = _archive(store.tree(layer), work / "blob", f"layer {layer.short}", events)
        (work / "blob").rename(store.blob(blob.digest))
        store.set_archive(layer.key, blob, diff_id)
    return blob, diff_id


def _archive(tree: Path, path: Path, shown: str, events: Events) -> tuple[Descriptor, str]:
    """Write a tree to a file as a layer; return its descriptor and diff ID."""
    with events.track(f"archiving {shown}", 0) as progress, path.open("wb") as file:
        with compressor("gzip", file) as stream:
            diff_id = pack(tree, stream)
        progress(file.tell())
    return Descriptor(OCI_LAYER, file_digest(path), path.stat().st_size), diff_id


def file_digest(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
