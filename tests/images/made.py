"""What tests of images need: storage, nobody who is told, and images of a few files, made by the standard library."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chlaunch.image.files import DirectoryFiles
from chlaunch.image.layout import Layout
from chlaunch.image.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Progress
from chlaunch.image.opening import open_store
from chlaunch.image.store import Store
from chlaunch.trees import Directory

# The content of a file; None for a directory, or the target of a symbolic link after "->", of a hard link
# after "=>".
Entries = Mapping[str, bytes | str | None]


class Silent:
    """Nobody is told."""

    def say(self, line: str) -> None:
        """Drop it."""

    def warn(self, line: str) -> None:
        """Drop it."""

    @contextmanager
    def track(self, _what: str, _total: int) -> Iterator[Progress]:
        """Count nothing."""
        yield lambda _bytes: None


def store_at(path: Path) -> Store:
    """Return the storage at path, made if it is not there."""
    store = open_store(path, Silent().say)
    assert store is not None
    return store


def archive(entries: Entries) -> bytes:
    """Return a layer's archive, not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                member.linkname = content[2:]
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def layout(
    path: Path,
    layers: Sequence[Entries | bytes],
    *,
    name: str = "1",
    architecture: str = "amd64",
    run: Mapping[str, Any] | None = None,
) -> Layout:
    """Write an image as an OCI layout; return it to read from. run: what its configuration says besides."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    tars = [layer if isinstance(layer, bytes) else archive(layer) for layer in layers]
    rows = [_put(blobs, gzip.compress(tar, 1, mtime=0), OCI_LAYER) for tar in tars]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]} if run is None else run,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _put(blobs, json.dumps(config).encode(), OCI_CONFIG),
        "layers": rows,
    }
    row = _put(blobs, json.dumps(manifest).encode(), OCI_MANIFEST)
    row["annotations"] = {"org.opencontainers.image.ref.name": name}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = path / "index.json"
    before = json.loads(index.read_text())["manifests"] if index.exists() else []
    index.write_text(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*before, row]}))
    return Layout(DirectoryFiles(Directory(str(path)), str(path)), str(path))


def _put(blobs: Path, content: bytes, kind: str) -> dict[str, Any]:
    """Write a blob; return its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}
