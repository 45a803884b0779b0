"""From storage to anywhere: the layers that are not there, the configuration, the manifest.

An image that was pulled goes as it came, byte by byte. What has no archive (it was imported, built, or made
one copy of all layers) gets one, which is kept: the same layer has the same digest again.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
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
from chlaunch.image.metadata import config_of
from chlaunch.image.pack import pack
from chlaunch.image.store import Layer, Store, StoredImage

JOBS = 4


def push(store: Store, image: StoredImage, sink: Sink, what: str, events: Events) -> Manifest:
    """Put an image where sink says, under a tag or digest; return its manifest.

    Raises:
        ImageError: it is damaged.
        RegistryError: the sink failed.

    """
    with store.using(events.say, f"pushing {image.name}"), store.work() as work:
        manifest, config = prepared(store, image, events)
        blobs = list({blob.digest: blob for blob in manifest.layers}.values())
        with ThreadPoolExecutor(JOBS) as pool:
            for future in [pool.submit(_put, store, sink, blob, events) for blob in blobs]:
                future.result()
        if not sink.has_blob(manifest.config):
            path = work / "config"
            path.write_bytes(config)
            sink.put_blob(manifest.config, path, lambda _bytes: None)
        sink.put_manifest(what or manifest.digest, manifest.raw, manifest.media_type)
        return manifest


def prepared(store: Store, image: StoredImage, events: Events) -> tuple[Manifest, bytes]:
    """Return an image's manifest and configuration, with archives of all its layers in storage."""
    if image.manifest and image.record.whole:
        known = parse(image.manifest, "", image.name)
        if isinstance(known, Manifest) and all(store.blob(blob.digest).exists() for blob in known.layers):
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


def _put(store: Store, sink: Sink, blob: Descriptor, events: Events) -> None:
    """Put a blob where it is not there yet."""
    brief = blob.digest.partition(":")[2][:12]
    if sink.has_blob(blob):
        events.say(f"layer {brief}: is there already")
        return
    with events.track(f"layer {brief}", blob.size) as progress:
        sink.put_blob(blob, store.blob(blob.digest), progress)


def _archived(store: Store, layer: Layer, events: Events) -> tuple[Descriptor, str]:
    """Return a layer's blob, made if it has none, and its diff ID."""
    known = store.archive(layer.key)
    if known is not None:
        return known
    with events.track(f"archiving layer {layer.short}", 0), store.work() as work:
        path = work / "blob"
        with path.open("wb") as file, compressor("gzip", file) as stream:
            diff_id = pack(store.tree(layer), stream)
        blob = Descriptor(OCI_LAYER, file_digest(path), path.stat().st_size)
        path.rename(store.blob(blob.digest))
        store.set_archive(layer.key, blob, diff_id)
    return blob, diff_id


def file_digest(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
