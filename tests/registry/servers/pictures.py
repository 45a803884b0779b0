"""Small images of the tests: real archives, configuration and manifest, in memory."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from chlaunch.image.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    Descriptor,
    Manifest,
    digest_of,
    dump,
    host_platform,
    make_manifest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from chlaunch.image.registry import Registry


class Picture(NamedTuple):
    """An image: its manifest, and its blobs by digest."""

    manifest: Manifest
    blobs: dict[str, bytes]

    @property
    def layer(self) -> Descriptor:
        """Return the first layer."""
        return self.manifest.layers[0]

    def push(self, registry: Registry, directory: Path, tag: str = "1") -> None:
        """Push it by our own client; its blobs become files of the directory."""
        for descriptor in (*self.manifest.layers, self.manifest.config):
            path = directory / descriptor.digest.removeprefix("sha256:")
            path.write_bytes(self.blobs[descriptor.digest])
            registry.put_blob(descriptor, path, lambda _: None)
        registry.put_manifest(tag, self.manifest.raw, self.manifest.media_type)


def picture(seed: int, size: int = 300_000) -> Picture:
    """Return an image whose only layer has a file of so many bytes that can't be compressed."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("data")
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(seed).randbytes(size)))  # noqa: S311  the same each time
    layer = gzip.compress(archive.getvalue(), 1, mtime=0)
    platform = host_platform()
    config = dump(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(archive.getvalue())]},
        }
    )
    rows = [
        Descriptor(kind, digest_of(raw), len(raw)) for kind, raw in ((OCI_CONFIG, config), (OCI_LAYER, layer))
    ]
    return Picture(make_manifest(rows[0], rows[1:]), {rows[0].digest: config, rows[1].digest: layer})
