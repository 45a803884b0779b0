"""What registries and archives say of an image: manifests, indexes, configurations; read, checked, written.

Docker's image manifest version 2, schema 2, and the OCI Image Format Specification 1.1, which have the same
shape but for their media types. Everything read here may come from strangers.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from chlaunch.errors import ImageError

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFESTS = (DOCKER_MANIFEST, OCI_MANIFEST)
INDEXES = (DOCKER_INDEX, OCI_INDEX)
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# What Go calls architectures, variants and systems; it is shown on terminals.
PLATFORM = re.compile(r"[A-Za-z0-9._-]{0,32}")

# Registries take no manifests beyond 4 MiB (OCI Distribution Specification, "Pushing Manifests").
MANIFEST_MOST = 4 << 20
CONFIG_MOST = 8 << 20
LAYERS_MOST = 500
BLOB_MOST = 1 << 44

# What uname(2) calls a machine, and what images call it (Go's GOARCH), with its variant.
ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
    "mips64": ("mips64le", ""),
    "loongarch64": ("loong64", ""),
}

# Called with the number of bytes done since it was called last.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Platform:
    """What an image runs on, in Go's words. variant: of the architecture; often left out."""

    architecture: str
    variant: str = ""
    os: str = "linux"

    def __str__(self) -> str:
        """Return it as --arch takes it."""
        return f"{self.architecture}/{self.variant}" if self.variant else self.architecture

    @property
    def usual(self) -> "Platform":
        """Return it without a variant that is the only one (arm64/v8)."""
        return Platform(self.architecture, "", self.os) if str(self) == "arm64/v8" else self


@dataclass(frozen=True)
class Descriptor:
    """What points at a blob. size: in bytes. platform: in an index, where it says one."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as a manifest has it."""
        said: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform is not None:
            said["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                said["platform"]["variant"] = self.platform.variant
        return {**said, "annotations": dict(self.annotations)} if self.annotations else said


@dataclass(frozen=True)
class Manifest:
    """One image: its configuration, and its layers, the lowest first. raw: the bytes that were read."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    raw: bytes

    @property
    def digest(self) -> str:
        """Return the digest of the manifest, which is the image's."""
        return digest_of(self.raw)


@dataclass(frozen=True)
class Index:
    """Images for several platforms."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    raw: bytes


@dataclass(frozen=True)
class Config:
    """What an image says of itself. environment: NAME=VALUE. entrypoint, cmd: None where it says nothing.

    diff_ids: digests of the layers' uncompressed archives, the lowest first. raw: the bytes that were read.
    said: all of it, as JSON has it.
    """

    platform: Platform
    environment: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    directory: str
    user: str
    shell: tuple[str, ...] | None
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    diff_ids: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...]
    said: Mapping[str, Any]
    raw: bytes


class Source(Protocol):
    """Where an image can be had from: a registry, a layout, an archive."""

    def manifest(self, what: str) -> tuple[bytes, str]:
        """Return a manifest or index, not checked yet, and its media type as far as it was said.

        what: a tag or a digest; empty for the only one, or the latest.
        """

    def blob(self, descriptor: Descriptor, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Give a blob's bytes from start on; whoever reads them checks digest and size."""


class Sink(Protocol):
    """Where an image can be put."""

    @property
    def parallel(self) -> bool:
        """Say whether blobs may be put there several at once."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Say whether it is there already."""

    def mount(self, descriptor: Descriptor, from_repository: str) -> bool:
        """Take a blob from a neighbouring repository; False if that can't be."""

    def put_blob(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Put the file at path there."""

    def put_manifest(self, what: str, raw: bytes, media_type: str) -> None:
        """Put a manifest there under a tag or its digest, after all it names."""


def digest_of(raw: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def host_platform() -> Platform:
    """Return the platform of this machine (uname(2))."""
    name = os.uname().machine
    return Platform(*ARCHITECTURES.get(name, (name, "")))


def parse(raw: bytes, media_type: str, shown: str) -> Manifest | Index:
    """Return the manifest or index that raw is. media_type: as said outside it; empty where it was not.

    Raises:
        ImageError: it is neither, or contradicts itself.

    """
    said = _object(raw, MANIFEST_MOST, shown)
    inside = _text(said, "mediaType", shown)
    kind = (inside or media_type).partition(";")[0].strip()
    if said.get("schemaVersion") == 1 or kind.startswith(SCHEMA_1):
        raise ImageError(
            f"{shown}: a manifest of schema 1, which nobody makes any more",
            "push the image again with a current tool",
        )
    if "manifests" in said and "layers" in said:
        # Readers that trust the media type and readers that look would see two images (CVE-2021-41190).
        raise ImageError(f"{shown}: both a manifest and an index", "do not trust this image")
    if "manifests" in said:
        rows = _rows(said, "manifests", shown)
        return Index(
            _kind(kind, INDEXES, OCI_INDEX, shown), tuple(_descriptor(row, shown) for row in rows), raw
        )
    config = said.get("config")
    if not isinstance(config, dict) or "layers" not in said:
        raise ImageError(f"{shown}: neither a manifest nor an index of images", "is this an image?")
    layers = tuple(_descriptor(row, shown) for row in _rows(said, "layers", shown))
    return Manifest(_kind(kind, MANIFESTS, OCI_MANIFEST, shown), _descriptor(config, shown), layers, raw)


def parse_config(raw: bytes, shown: str) -> Config:
    """Return the configuration that raw is.

    Raises:
        ImageError: it is none.

    """
    said = _object(raw, CONFIG_MOST, shown)
    run = said.get("config") or {}
    rootfs = said.get("rootfs") or {}
    if not isinstance(run, dict) or not isinstance(rootfs, dict):
        raise ImageError(f"{shown}: config and rootfs of an image's configuration are objects")
    diff_ids = _words(rootfs, "diff_ids", shown) or ()
    if any(DIGEST.fullmatch(digest) is None for digest in diff_ids):
        raise ImageError(f"{shown}: diff_ids of an image's configuration are sha256 digests")
    labels = run.get("Labels") or {}
    volumes = run.get("Volumes") or {}
    history = said.get("history") or []
    if not (isinstance(labels, dict) and isinstance(volumes, dict) and isinstance(history, list)):
        raise ImageError(f"{shown}: Labels and Volumes are objects, history is an array")
    return Config(
        _platform(said, shown),
        _words(run, "Env", shown) or (),
        _words(run, "Entrypoint", shown),
        _words(run, "Cmd", shown),
        _text(run, "WorkingDir", shown),
        _text(run, "User", shown),
        _words(run, "Shell", shown),
        {str(name): str(value) for name, value in labels.items()},
        tuple(str(name) for name in volumes),
        diff_ids,
        tuple(row for row in history if isinstance(row, dict)),
        said,
        raw,
    )


def make_manifest(config: Descriptor, layers: Sequence[Descriptor], *, oci: bool = True) -> Manifest:
    """Return a new manifest, written so that the same image gives the same bytes."""
    kind = OCI_MANIFEST if oci else DOCKER_MANIFEST
    said = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    return Manifest(kind, config, tuple(layers), dump(said))


def dump(said: object) -> bytes:
    """Return JSON that is the same for the same content."""
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogateescape"
    )


def _object(raw: bytes, most: int, shown: str) -> dict[str, Any]:
    """Return the JSON object that raw is."""
    if len(raw) > most:
        raise ImageError(f"{shown}: more than {most >> 20} MiB", "that is no image of this world")
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{shown}: not JSON: {error}", "is this an image?") from error
    if not isinstance(said, dict):
        raise ImageError(f"{shown}: not a JSON object", "is this an image?")
    return said


def _rows(said: Mapping[str, Any], name: str, shown: str) -> list[Any]:
    """Return an array that holds descriptors."""
    rows = said[name]
    if not isinstance(rows, list) or len(rows) > LAYERS_MOST:
        raise ImageError(f"{shown}: {name} must be an array of at most {LAYERS_MOST}")
    return rows


def _descriptor(row: object, shown: str) -> Descriptor:
    """Return the descriptor that a JSON object is."""
    if not isinstance(row, dict):
        raise ImageError(f"{shown}: a descriptor must be an object")
    digest, size = row.get("digest"), row.get("size")
    if not isinstance(digest, str) or DIGEST.fullmatch(digest) is None:
        raise ImageError(
            f"{shown}: not a sha256 digest: {str(digest)[:100]!r}", "other digests are not known here"
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= BLOB_MOST:
        raise ImageError(f"{shown}: not the size of a blob: {str(size)[:40]!r}")
    place = row.get("platform")
    platform = None
    if isinstance(place, dict):
        platform = _platform(place, shown)
    notes = row.get("annotations")
    annotations = {str(name): str(text) for name, text in notes.items()} if isinstance(notes, dict) else {}
    return Descriptor(_text(row, "mediaType", shown), digest, size, platform, annotations)


def _platform(said: Mapping[str, Any], shown: str) -> Platform:
    """Return the platform that a JSON object names."""
    words = [_text(said, name, shown) for name in ("architecture", "variant", "os")]
    if not all(PLATFORM.fullmatch(word) for word in words):
        raise ImageError(
            f"{shown}: not the names of a platform: {ascii(words)[:100]}", "do not trust this image"
        )
    return Platform(words[0], words[1], words[2] or "linux")


def _kind(kind: str, known: Sequence[str], default: str, shown: str) -> str:
    """Return the media type, which must fit what was found."""
    if kind in ("", "application/json", "text/plain", "application/octet-stream"):
        return default
    if kind not in known:
        raise ImageError(
            f"{shown}: {kind[:100]!r} holds something else than it says", "do not trust this image"
        )
    return kind


def _text(said: Mapping[str, Any], name: str, shown: str) -> str:
    """Return a text; empty if it is not there."""
    value = said.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImageError(f"{shown}: {name} must be a text, not {str(value)[:40]!r}")
    return value


def _words(said: Mapping[str, Any], name: str, shown: str) -> tuple[str, ...] | None:
    """Return an array of texts; None if it is not there. No text can have a NUL: arguments can't."""
    value = said.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or any(not isinstance(word, str) or "\0" in word for word in value):
        raise ImageError(f"{shown}: {name} must be an array of texts")
    return tuple(value)
