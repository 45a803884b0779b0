"""docker-archives: what ``docker save``, ``podman save`` and skopeo's ``docker-archive:`` write.

``manifest.json`` has a row for each image: which members are its configuration and its layers. Layers are
plain archives mostly; other tools compress them. What ``docker save`` writes since 25 is an OCI layout too.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from chlaunch.errors import ImageError, UsageError
from chlaunch.image import compress, layout, manifest, reference
from chlaunch.image.files import Files, open_files
from chlaunch.image.layout import PLAIN_LAYER, Layout
from chlaunch.image.manifest import (
    CONFIG_MOST,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LAYERS_MOST,
    MANIFEST_MOST,
    OCI_CONFIG,
    Descriptor,
    Manifest,
    Progress,
    digest_of,
)
from chlaunch.image.writing import ArchiveWriter, counting

MANIFEST = "manifest.json"

# POSIX.1-1988's mark in a header of tar, which plain layers begin with.
TAR_MAGIC_AT, TAR_MAGIC = 257, b"ustar"
PIECE = 1 << 20


@dataclass(frozen=True)
class DockerArchive:
    """An archive to read from. It has no manifests, so they are made up. shown: its name, for messages.

    places: which member a digest is, as far as manifest() has told.
    """

    files: Files
    shown: str
    places: dict[str, str] = field(default_factory=dict)

    def manifest(self, what: str) -> tuple[bytes, str]:
        """Return a manifest made of what the archive says, and its media type.

        A layer that is a plain archive gets the digest that the configuration has for it, which is for the
        reader to check; a compressed one is read, to know its own.

        Raises:
            ImageError: there is no such image, it is not clear which is meant, or the archive makes no sense.

        """
        row = self._row(what)
        name = self._member(row.get("Config"))
        raw = self._read(name, CONFIG_MOST)
        config = Descriptor(DOCKER_CONFIG, digest_of(raw), len(raw))
        diff_ids = manifest.parse_config(raw, self.shown).diff_ids
        members = row.get("Layers") or []
        if not isinstance(members, list) or len(members) != len(diff_ids) or len(members) > LAYERS_MOST:
            raise ImageError(
                f"{self.shown}: {MANIFEST} and the configuration differ on how many layers there are",
                "the archive is damaged: make it again",
            )
        layers = [
            self._layer(self._member(member), diff_id)
            for member, diff_id in zip(members, diff_ids, strict=True)
        ]
        self.places[config.digest] = name
        for layer, member in zip(layers, members, strict=True):
            self.places[layer.digest] = member
        return manifest.make_manifest(config, layers, oci=False).raw, DOCKER_MANIFEST

    @contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[BinaryIO]:
        """Give a blob's bytes from start on. Its manifest must have been asked for.

        Raises:
            ImageError: it is not there.

        """
        if descriptor.digest not in self.places:
            raise ImageError(f"{self.shown}: there is no {descriptor.digest}", "is it of this image?")
        with self.files.open(self.places[descriptor.digest], start) as file:
            yield file

    def _row(self, what: str) -> Mapping[str, Any]:
        """Return the row of the image that is meant."""
        try:
            rows = json.loads(self._read(MANIFEST, MANIFEST_MOST))
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise ImageError(f"{self.shown}: {MANIFEST} is no list of images", "is it from `docker save`?")
        fitting = [row for row in rows if not what or _full(what) in map(_full, _tags(row))]
        if len(fitting) == 1:
            row: Mapping[str, Any] = fitting[0]
            return row
        names = ", ".join(sorted({ascii(tag)[1:-1][:80] for row in rows for tag in _tags(row)})[:10])
        why = "it has several images" if fitting else f"no image {what}"
        raise ImageError(
            f"{self.shown}: {why}{f'; there are: {names}' if names else ''}",
            f"say which: {self.shown}:NAME:TAG" if names else "",
        )

    def _layer(self, member: str, diff_id: str) -> Descriptor:
        """Return the descriptor of a layer."""
        size = self.files.size(member)
        digest = hashlib.sha256()
        with self.files.open(member) as file:
            piece = file.read(PIECE)
            # An empty layer may be two empty blocks, or nothing.
            if piece[TAR_MAGIC_AT:].startswith(TAR_MAGIC) or not piece.strip(b"\0"):
                return Descriptor(PLAIN_LAYER, diff_id, size)
            while piece:
                digest.update(piece)
                piece = file.read(PIECE)
        return Descriptor(DOCKER_LAYER, f"sha256:{digest.hexdigest()}", size)

    def _member(self, name: object) -> str:
        """Return the name of a member, which must be there."""
        if not isinstance(name, str) or not self.files.has(name):
            raise ImageError(
                f"{self.shown}: there is no {ascii(name)[:100]}", "the archive is damaged: make it again"
            )
        return name

    def _read(self, name: str, most: int) -> bytes:
        """Return what is in a small member."""
        with self.files.open(name) as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise ImageError(f"{self.shown}: {name} has more than {most >> 20} MiB", "is it an image?")
        return raw


@dataclass(frozen=True)
class DockerArchiveSink:
    """A new archive to write to, for ``docker load`` and ``podman load``. Layers get decompressed.

    members: what a digest has become. rows: of manifest.json.
    """

    writer: ArchiveWriter
    members: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def parallel(self) -> bool:
        """Say that blobs are put there one after another."""
        return False

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Say whether it was put already."""
        return descriptor.digest in self.members

    def mount(self, _descriptor: Descriptor, _from_repository: str) -> bool:
        """Say that there are no neighbours."""
        return False

    def put_blob(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Put the file at path there."""
        suffix = ".json" if descriptor.media_type in (DOCKER_CONFIG, OCI_CONFIG) else ".tar"
        with path.open("rb") as file:
            stream = file if suffix == ".json" else compress.open_decompressed(file)
            digest = self.writer.put(
                stream, lambda found: _file_name(found, suffix), counting(file, progress)
            )
        self.members[descriptor.digest] = _file_name(digest, suffix)

    def put_manifest(self, what: str, raw: bytes, media_type: str) -> None:
        """Put an image there, whose name is what, a whole reference; none if that is empty, or a digest.

        Raises:
            ImageError: it is an index, which these archives have no place for.

        """
        image = manifest.parse(raw, media_type, what or "image")
        if not isinstance(image, Manifest):
            raise ImageError(
                "a docker-archive has no place for images of several platforms", "choose one with --arch"
            )
        tagged = [_tagged(what)] if what and not manifest.DIGEST.fullmatch(what) else None
        layers = [self.members[layer.digest] for layer in image.layers]
        self.rows.append({"Config": self.members[image.config.digest], "RepoTags": tagged, "Layers": layers})

    def finish(self) -> None:
        """Write what comes last."""
        self.writer.put(io.BytesIO(manifest.dump(self.rows)), lambda _: MANIFEST)
        self.writer.finish()


@contextmanager
def open_archive(
    path: Path, temporary: Path, progress: Progress = lambda _: None
) -> Iterator[Layout | DockerArchive]:
    """Give what an OCI layout (directory, archive) or a docker-archive has; of one that is both, the former.

    temporary: a directory for a decompressed copy, if need be. progress: told the bytes read for that.

    Raises:
        ImageError: it is neither.

    """
    with open_files(path, temporary, progress) as files:
        if files.has(layout.INDEX) and files.has(layout.MARK):
            yield Layout(files, str(path))
        elif files.has(MANIFEST):
            yield DockerArchive(files, str(path))
        else:
            raise ImageError(
                f"neither an OCI layout nor a docker-archive: {path}",
                f"they have {layout.INDEX} and {layout.MARK}, or {MANIFEST}",
            )


@contextmanager
def write_archive(file: BinaryIO) -> Iterator[DockerArchiveSink]:
    """Give a sink for a new archive."""
    sink = DockerArchiveSink(ArchiveWriter(file))
    yield sink
    sink.finish()


def _file_name(digest: str, suffix: str) -> str:
    return digest.removeprefix("sha256:") + suffix


def _tags(row: Mapping[str, Any]) -> list[str]:
    """Return the names of an image in manifest.json."""
    tags = row.get("RepoTags") or []
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _full(name: str) -> str:
    """Return a name with nothing left out; what is none stays as it is."""
    try:
        return str(reference.parse(name).complete({}))
    except UsageError:
        return name


def _tagged(name: str) -> str:
    """Return a name with a tag: without one, `docker load` takes it for no name."""
    try:
        given = reference.parse(name)
    except UsageError:
        return name
    return name if given.tag else f"{name}:{reference.DEFAULT_TAG}"
