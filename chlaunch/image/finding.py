"""Which image is wanted, and what its source has for that: manifest and configuration, none of its layers."""

from dataclasses import dataclass, field

from chlaunch.errors import ImageError
from chlaunch.image.choosing import select
from chlaunch.image.events import Events
from chlaunch.image.manifest import (
    CONFIG_MOST,
    Config,
    Descriptor,
    Index,
    Manifest,
    Platform,
    Source,
    digest_of,
    host_platform,
    parse,
    parse_config,
)
from chlaunch.image.unpack import Limits


@dataclass(frozen=True)
class Wanted:
    """Which image. name: what it will be called in storage. what: a tag or digest at the source.

    reference: where it comes from, in full, as it is kept and shown. platform: None where any will do. last:
    of how many layers, counted from the lowest, it shall be made; None for all. fresh: download also blobs
    that are there.
    """

    name: str
    reference: str
    what: str
    platform: Platform | None = field(default_factory=host_platform)
    last: int | None = None
    fresh: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Found:
    """An image at its source."""

    manifest: Manifest
    config: Config

    @property
    def layers(self) -> list[tuple[Descriptor, str]]:
        """Return blobs and diff IDs, the lowest first."""
        return list(zip(self.manifest.layers, self.config.diff_ids, strict=True))


def find_manifest(source: Source, what: str, platform: Platform | None, shown: str) -> Manifest:
    """Return the manifest for a platform; for None that of the first image of an index.

    Raises:
        ImageError: there is none, or it is damaged.
        RegistryError: the source failed.

    """
    raw, kind = source.manifest(what)
    parsed = parse(raw, kind, shown)
    for _ in range(2):  # an index of indexes
        if isinstance(parsed, Manifest):
            return parsed
        chosen = _any(parsed, shown) if platform is None else select(parsed, platform, shown)
        raw, kind = source.manifest(chosen.digest)
        if digest_of(raw) != chosen.digest:
            raise ImageError(
                f"{shown}: its manifest is not {chosen.digest}", "the source is damaged: try again"
            )
        parsed = parse(raw, kind or chosen.media_type, shown)
    if isinstance(parsed, Manifest):
        return parsed
    raise ImageError(f"{shown}: an index of indexes of indexes", "name the image by its digest")


def find(source: Source, wanted: Wanted) -> Found:
    """Return what there is for a request; nothing of it is downloaded but manifest and configuration.

    Raises:
        ImageError: there is nothing for the platform, or it is damaged.
        RegistryError: the source failed.

    """
    manifest = find_manifest(source, wanted.what, wanted.platform, wanted.reference)
    config = parse_config(read_blob(source, manifest.config, wanted.reference), wanted.reference)
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(
            f"{wanted.reference}: {len(manifest.layers)} layers, but {len(config.diff_ids)} diff_ids",
            "the image is damaged, or no image of files: push it again",
        )
    return Found(manifest, config)


def read_blob(source: Source, descriptor: Descriptor, shown: str) -> bytes:
    """Return a small blob.

    Raises:
        ImageError: it is too large, or not what its digest says.

    """
    if descriptor.size > CONFIG_MOST:
        raise ImageError(
            f"{shown}: a configuration of {descriptor.size} bytes", "that is no image of this world"
        )
    with source.blob(descriptor) as stream:
        raw = stream.read(descriptor.size + 1)
    if digest_of(raw) != descriptor.digest:
        raise ImageError(
            f"{shown}: its configuration is not {descriptor.digest}", "the source is damaged: try again"
        )
    return raw


def check_platform(config: Config, wanted: Wanted, events: Events) -> None:
    """Warn of an image that was the only one there, and is for another machine.

    Raises:
        ImageError: another was asked for by name.

    """
    if wanted.platform is None or not config.platform.architecture:
        return
    have, want = config.platform.usual, wanted.platform.usual
    if (have.os, have.architecture) == (want.os, want.architecture):
        return
    line = f"{wanted.reference}: this image is for {config.platform.os}/{config.platform}"
    if want != host_platform().usual:
        raise ImageError(f"{line}, not for {want}", "leave out --arch, or say --arch=yolo")
    events.warn(f"{line}, this machine is {want}")


def _any(index: Index, shown: str) -> Descriptor:
    """Return the first image of an index."""
    for row in index.manifests:
        if row.platform is None or "unknown" not in (row.platform.os, row.platform.architecture):
            return row
    raise ImageError(f"{shown}: an index without an image")
