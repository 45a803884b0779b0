"""What storage says of layers and images: small JSON files, which anybody may have changed; see store.py."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chlaunch.errors import StorageError
from chlaunch.trees import LAYER

RECORD_MOST = 1 << 20

# What keys of such layers begin with.
SINGLE = "single"


@dataclass(frozen=True)
class Layer:
    """An unpacked layer. key: by which it is found. short: its name in l. size: of its files, in bytes.

    diff_id: the digest of its uncompressed archive; empty if it never was one. dropped: what its archive had
    that nobody can have here (devices, set-id bits), and how many.
    """

    key: str
    short: str
    diff_id: str = ""
    size: int = 0
    members: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Say whether it has all files of an image, so that no layer goes below it; its key says so."""
        return self.key.startswith(f"{SINGLE}-")


@dataclass(frozen=True)
class Record:
    """What is known of an image. keys: of its layers, the lowest first. top: the key of the one that is ours.

    reference: where it came from, in full. digest: of its manifest; empty if it has none. platform: as
    --arch has it. made: seconds since 1970. whole: the keys are as the manifest has them; else the image is
    one copy of all layers.
    """

    reference: str
    digest: str
    platform: str
    made: float
    keys: tuple[str, ...]
    top: str = ""
    whole: bool = True


@dataclass(frozen=True)
class StoredImage:
    """An image in storage. name: by which ch-run knows it. layers: the lowest first, ours included."""

    name: str
    path: Path
    record: Record
    layers: tuple[Layer, ...]
    trees: tuple[Path, ...]

    @property
    def config(self) -> bytes:
        """Return its configuration, JSON; empty if it has none."""
        return read(self.path / "config.json")

    @property
    def manifest(self) -> bytes:
        """Return its manifest as it was downloaded; empty if it has none."""
        return read(self.path / "manifest.json")


def read(path: Path) -> bytes:
    """Return what a small file has; nothing if it is not there.

    Raises:
        StorageError: it is there, and can't be read: what is not known must not be taken for not there.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(RECORD_MOST * 16)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise StorageError(f"can't read storage: {path}: {os.strerror(error.errno or 0)}") from error


def load(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None if there is none."""
    try:
        said = json.loads(read(path))
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def layer_of(said: Mapping[str, Any]) -> Layer | None:
    """Return the layer that a record is of; None if it makes no sense."""
    try:
        layer = Layer(**said)
    except TypeError:
        return None
    texts = (layer.key, layer.short, layer.diff_id)
    numbers = (layer.size, layer.members)
    fine = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
    return layer if fine and LAYER.fullmatch(layer.short) and isinstance(layer.dropped, dict) else None


def record_of(said: Mapping[str, Any]) -> Record | None:
    """Return the record of an image; None if it makes no sense."""
    try:
        record = Record(**{**said, "keys": tuple(said["keys"])})
    except (TypeError, KeyError):
        return None
    texts = (record.reference, record.digest, record.platform, record.top, *record.keys)
    fine = all(isinstance(text, str) for text in texts) and isinstance(record.made, (int, float))
    return record if fine else None
