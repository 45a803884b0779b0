"""OCI image layouts (OCI Image Format Specification 1.1, "Image Layout"): directories, and archives of them.

``oci-layout``, ``index.json`` with a row for each image, and ``blobs/sha256/HEX``. An image's name there is
an annotation of its row: that of containers-transports(5), for skopeo and umoci, or that of containerd.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from chlaunch.errors import ImageError
from chlaunch.image import manifest
from chlaunch.image.files import DirectoryFiles, Files
from chlaunch.image.manifest import (
    DIGEST,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFEST_MOST,
    MANIFESTS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Progress,
    digest_of,
)
from chlaunch.image.writing import ArchiveWriter, DirectoryWriter, Writer, counting
from chlaunch.trees import Directory

MARK, MARK_TEXT = "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
INDEX = "index.json"
NAME = "org.opencontainers.image.ref.name"
NAMES = ("io.containerd.image.name", NAME)

# Docker's layers, not compressed; and what OCI calls its layers.
PLAIN_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
OCI_LAYERS = {DOCKER_LAYER: OCI_LAYER, PLAIN_LAYER: "application/vnd.oci.image.layer.v1.tar"}


@dataclass(frozen=True)
class Layout:
    """A layout to read from. shown: its name, for messages."""

    files: Files
    shown: str

    def manifest(self, what: str) -> tuple[bytes, str]:
        """Return a manifest or index whose digest is right, and its media type.

        what: a name, a digest; empty for the only image, or the one named latest. Where several rows of the
        index fit, and have a platform each, they are the index.

        Raises:
            ImageError: it is not there, is ambiguous, or is not what its digest says.

        """
        if DIGEST.fullmatch(what):
            row = next((row for row in self.rows() if row.digest == what), None)
            return self._read(row or Descriptor("", what, self.files.size(_blob(what)))), (
                row.media_type if row else ""
            )
        rows = self._named(what)
        if len(rows) == 1:
            return self._read(rows[0]), rows[0].media_type
        said = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [row.as_json() for row in rows]}
        return manifest.dump(said), OCI_INDEX

    @contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[BinaryIO]:
        """Give a blob's bytes from start on.

        Raises:
            ImageError: it is not there, or has another size.

        """
        name = _blob(descriptor.digest)
        size = self.files.size(name)
        if size != descriptor.size:
            raise ImageError(
                f"{self.shown}: {name} has {size} bytes, and should have {descriptor.size}",
                "the image is damaged: get it again",
            )
        with self.files.open(name, start) as file:
            yield file

    def rows(self) -> tuple[Descriptor, ...]:
        """Return what index.json has of images.

        Raises:
            ImageError: it is no layout.

        """
        if self.files.has(MARK):
            with self.files.open(MARK) as file:
                text = file.read(MANIFEST_MOST)
            try:
                version = json.loads(text)["imageLayoutVersion"]
            except (ValueError, RecursionError, KeyError, TypeError):
                version = None
            if not isinstance(version, str) or not version.startswith("1."):
                raise ImageError(f"{self.shown}: not an OCI layout of version 1", f"see its file {MARK}")
        with self.files.open(INDEX) as file:
            index = manifest.parse(file.read(MANIFEST_MOST + 1), OCI_INDEX, f"{self.shown}: {INDEX}")
        if not isinstance(index, Index):
            raise ImageError(f"{self.shown}: {INDEX} is no index", "is it an OCI layout?")
        return tuple(row for row in index.manifests if row.media_type in (*MANIFESTS, *INDEXES))

    def _named(self, what: str) -> tuple[Descriptor, ...]:
        """Return the rows that are meant: one, or one for each platform.

        Raises:
            ImageError: there is none, or it is not clear which.

        """
        rows = self.rows()
        fitting = [row for row in rows if not what or what in _names(row)]
        if len(fitting) > 1 and not what and not _are_platforms(fitting):
            fitting = [row for row in fitting if "latest" in _names(row)] or fitting
        if fitting and (len(fitting) == 1 or _are_platforms(fitting)):
            return tuple(fitting)
        names = ", ".join(sorted({ascii(name)[1:-1][:80] for row in rows for name in _names(row)})[:10])
        why = "it has several images" if fitting else f"no image {what}" if what else "no image in it"
        raise ImageError(
            f"{self.shown}: {why}{f'; there are: {names}' if names else ''}",
            f"say which: {self.shown}:NAME" if names else "",
        )

    def _read(self, row: Descriptor) -> bytes:
        """Return a manifest."""
        if row.size > MANIFEST_MOST:
            raise ImageError(
                f"{self.shown}: a manifest of more than {MANIFEST_MOST >> 20} MiB", "is it an image?"
            )
        with self.blob(row) as file:
            raw = file.read(row.size + 1)
        if digest_of(raw) != row.digest:
            raise ImageError(
                f"{self.shown}: {row.digest} is the digest of something else",
                "the image is damaged: get it again",
            )
        return raw


@dataclass(frozen=True)
class LayoutSink:
    """A layout to write to. rows: of its index, which put_manifest() changes.

    written: whether the index is written each time it changes, as it must be where others may look.
    """

    writer: Writer
    rows: list[Descriptor]
    written: bool = True

    @property
    def parallel(self) -> bool:
        """Say that blobs are put there one after another."""
        return False

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Say whether it is there already."""
        return self.writer.size(_blob(descriptor.digest)) == descriptor.size

    def mount(self, _descriptor: Descriptor, _from_repository: str) -> bool:
        """Say that there are no neighbours."""
        return False

    def put_blob(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Put the file at path there.

        Raises:
            ImageError: it is not what the descriptor says.

        """
        with path.open("rb") as file:
            digest = self.writer.put(file, _blob, counting(file, progress))
        if digest != descriptor.digest:
            raise ImageError(f"{path} is not {descriptor.digest}", "it changed meanwhile: try again")

    def put_manifest(self, what: str, raw: bytes, media_type: str) -> None:
        """Put a manifest there, in place of what had its name; under its digest, as part of an index.

        One of Docker becomes one of OCI, with another digest, as layouts have no other for skopeo.
        """
        if DIGEST.fullmatch(what):
            self.writer.put(io.BytesIO(raw), _blob)
            return
        if media_type == DOCKER_MANIFEST:
            raw, media_type = _as_oci(raw).raw, OCI_MANIFEST
        digest = self.writer.put(io.BytesIO(raw), _blob)
        notes = {NAME: what} if what else {}
        self.rows[:] = [row for row in self.rows if row.annotations.get(NAME, "") != what]
        self.rows.append(Descriptor(media_type, digest, len(raw), None, notes))
        if self.written:
            self.finish()

    def finish(self) -> None:
        """Write the index, which makes the images of it exist."""
        said = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [row.as_json() for row in self.rows],
        }
        self.writer.put(io.BytesIO(MARK_TEXT), lambda _: MARK)
        self.writer.put(io.BytesIO(manifest.dump(said)), lambda _: INDEX)


@contextmanager
def write_directory(path: Path) -> Iterator[LayoutSink]:
    """Give a sink for a directory that is there: empty, or a layout, to which images are added.

    What is there stays usable, whenever this ends.

    Raises:
        ImageError: it is something else.

    """
    rows: tuple[Descriptor, ...] = ()
    if any(path.iterdir()):
        rows = Layout(DirectoryFiles(Directory(str(path)), str(path)), str(path)).rows()
    yield LayoutSink(DirectoryWriter(path), list(rows))


@contextmanager
def write_archive(file: BinaryIO) -> Iterator[LayoutSink]:
    """Give a sink for a new archive."""
    sink = LayoutSink(ArchiveWriter(file), [], written=False)
    yield sink
    sink.finish()
    sink.writer.finish()


def _as_oci(raw: bytes) -> Manifest:
    """Return Docker's manifest with the media types of OCI."""
    image = manifest.parse(raw, DOCKER_MANIFEST, "image")
    if not isinstance(image, Manifest):
        raise ImageError("an index that calls itself a manifest", "is it an image?")
    layers = [
        replace(layer, media_type=OCI_LAYERS.get(layer.media_type, layer.media_type))
        for layer in image.layers
    ]
    return manifest.make_manifest(replace(image.config, media_type=OCI_CONFIG), layers)


def _blob(digest: str) -> str:
    """Return the file that a blob is."""
    return f"blobs/{digest.replace(':', '/')}"


def _names(row: Descriptor) -> tuple[str, ...]:
    """Return what an image may be asked for by."""
    return tuple(row.annotations[name] for name in NAMES if name in row.annotations)


def _are_platforms(rows: Sequence[Descriptor]) -> bool:
    """Say whether rows are one image for several platforms."""
    platforms = {row.platform for row in rows}
    return None not in platforms and len(platforms) == len(rows) and len({_names(row) for row in rows}) == 1
