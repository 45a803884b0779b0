"""OCI layouts and docker-archives: skopeo, umoci and podman on the other side; and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chlaunch.errors import ImageError
from chlaunch.image import archive, layout, manifest
from chlaunch.image.archive import open_archive
from chlaunch.image.choosing import select
from chlaunch.image.manifest import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    digest_of,
    parse,
    parse_config,
)


def run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with one image of two layers, as umoci, skopeo and gzip write it."""
    top = tmp_path_factory.mktemp("made")
    for name in ("one", "two"):
        (top / name).mkdir()
        (top / name / "file").write_text(name * 10_000)
    run("umoci", "init", "--layout", top / "layout")
    run("umoci", "new", "--image", f"{top}/layout:1")
    run("umoci", "insert", "--image", f"{top}/layout:1", top / "one", "/one")
    run("umoci", "insert", "--image", f"{top}/layout:1", top / "two", "/two")
    run("umoci", "config", "--image", f"{top}/layout:1", "--config.cmd", "/bin/sh")
    source = f"oci:{top}/layout:1"
    run("skopeo", "copy", source, f"oci:{top}/one-layout")
    run("skopeo", "copy", source, f"oci-archive:{top}/oci.tar:1")
    run("skopeo", "copy", source, f"docker-archive:{top}/docker.tar:here/image:1")
    for name in ("oci", "docker"):
        (top / f"{name}.tar.gz").write_bytes(gzip.compress((top / f"{name}.tar").read_bytes()))
    run("zstd", "-q", top / "docker.tar")
    return top


def contents(path: Path, temporary: Path, what: str = "") -> tuple[list[str], list[bytes], bytes]:
    """Return an image's diff IDs, its layers uncompressed, and its manifest; digests and sizes are checked."""
    with open_archive(path, temporary) as source:
        raw, kind = source.manifest(what)
        image = parse(raw, kind, "test")
        assert isinstance(image, Manifest)
        blobs = []
        for row in (image.config, *image.layers):
            with source.blob(row) as stream:
                blobs.append(stream.read())
            assert (digest_of(blobs[-1]), len(blobs[-1])) == (row.digest, row.size)
            with source.blob(row, 7) as stream:
                assert stream.read() == blobs[-1][7:]
    diff_ids = list(parse_config(blobs[0], "test").diff_ids)
    plain = [gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob for blob in blobs[1:]]
    return diff_ids, plain, raw


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("layout", "1"),
        ("layout", ""),
        ("one-layout", ""),
        ("oci.tar", ""),
        ("oci.tar", "1"),
        ("oci.tar.gz", "1"),
        ("docker.tar", ""),
        ("docker.tar", "here/image:1"),
        ("docker.tar", "docker.io/here/image:1"),
        ("docker.tar.gz", ""),
        ("docker.tar.zst", ""),
    ],
)
def test_what_others_write(made: Path, tmp_path: Path, name: str, what: str) -> None:
    diff_ids, layers, raw = contents(made / name, tmp_path, what)
    assert diff_ids == [digest_of(layer) for layer in layers]
    assert len(layers) == 2
    if not name.startswith("docker"):
        known = json.loads(run("skopeo", "inspect", f"oci:{made}/layout:1"))
        assert digest_of(raw) == known["Digest"]
    assert list(tmp_path.iterdir()) == []


def copy(source: layout.Layout | archive.DockerArchive, sink: Any, what: str, temporary: Path) -> None:
    """Copy the only image."""
    raw, kind = source.manifest("")
    image = parse(raw, kind, "test")
    assert isinstance(image, Manifest)
    done: list[int] = []
    wanted = 0
    for row in (image.config, *image.layers, *image.layers[:1]):
        if sink.has_blob(row):
            continue
        with source.blob(row) as stream:
            (temporary / "blob").write_bytes(stream.read())
        sink.put_blob(row, temporary / "blob", done.append)
        wanted += row.size
        assert sink.has_blob(row)
    assert sum(done) == wanted
    sink.put_manifest(what, raw, kind)


@pytest.mark.parametrize("name", ["oci.tar", "docker.tar"])
@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_what_others_read(made: Path, tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "work").mkdir()
    out = tmp_path / "out"
    with ExitStack() as stack:
        source = stack.enter_context(open_archive(made / name, tmp_path))
        if kind == "oci":
            out.mkdir()
            sink: Any = stack.enter_context(layout.write_directory(out))
        else:
            file = stack.enter_context(out.open("w+b"))
            write = layout.write_archive if kind == "oci-archive" else archive.write_archive
            sink = stack.enter_context(write(file))
        copy(source, sink, "quay.io/here/new:1" if kind == "docker-archive" else "new", tmp_path / "work")
    tag = "" if kind == "docker-archive" else ":new"
    known = json.loads(run("skopeo", "inspect", "--config", f"{kind}:{out}{tag}"))
    assert known["rootfs"]["diff_ids"] == contents(made / name, tmp_path)[0]
    run("skopeo", "copy", f"{kind}:{out}{tag}", f"dir:{tmp_path}/dir")  # checks all digests
    assert contents(out, tmp_path)[:2] == contents(made / name, tmp_path)[:2]
    if kind == "oci":
        run("umoci", "stat", "--image", f"{out}:new")


def test_an_archive_is_the_same_each_time(made: Path, tmp_path: Path) -> None:
    for write in (layout.write_archive, archive.write_archive):
        files = io.BytesIO(), io.BytesIO()
        for file in files:
            with open_archive(made / "oci.tar", tmp_path) as source, write(file) as sink:
                copy(source, sink, "new", tmp_path)
        assert files[0].getvalue() == files[1].getvalue()


def test_podman_loads_and_saves(made: Path, tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp()) / "run"  # podman takes 50 characters
    podman = ("podman", "--root", tmp_path / "root", "--runroot", short, "--storage-driver=vfs")
    with (
        open_archive(made / "oci.tar", tmp_path) as source,
        (tmp_path / "new.tar").open("w+b") as file,
        archive.write_archive(file) as sink,
    ):
        copy(source, sink, "quay.io/here/new", tmp_path)
    run(*podman, "load", "-i", tmp_path / "new.tar")
    run(*podman, "save", "-o", tmp_path / "saved.tar", "quay.io/here/new:latest")
    assert contents(tmp_path / "saved.tar", tmp_path)[0] == contents(made / "oci.tar", tmp_path)[0]
    run(*podman, "rmi", "--all")
    shutil.rmtree(short.parent)


def test_images_of_a_layout(made: Path, tmp_path: Path) -> None:
    """Several images, by their names; one that is put again replaces the one of its name only."""
    out = tmp_path / "out"
    out.mkdir()
    for name, file in (("1", "oci.tar"), ("latest", "docker.tar"), ("1", "docker.tar")):
        with open_archive(made / file, tmp_path) as source, layout.write_directory(out) as sink:
            copy(source, sink, name, tmp_path)
    docker = contents(made / "docker.tar", tmp_path)[1]
    assert contents(out, tmp_path, "1")[1] == contents(out, tmp_path, "")[1] == docker
    assert contents(out, tmp_path, "1")[2] == contents(out, tmp_path, "latest")[2]
    assert sorted(row.name for row in out.iterdir()) == ["blobs", "index.json", "oci-layout"]
    with pytest.raises(ImageError, match="no image nowhere; there are: 1, latest"):
        contents(out, tmp_path, "nowhere")
    with open_archive(made / "oci.tar", tmp_path) as source, layout.write_directory(out) as sink:
        copy(source, sink, "other", tmp_path)
        said = json.loads((out / "index.json").read_text())
        said["manifests"] = [row for row in said["manifests"] if "latest" not in str(row)]
        (out / "index.json").write_text(json.dumps(said))
    with pytest.raises(ImageError, match="it has several images; there are: 1, other"):
        contents(out, tmp_path)


def put(files: dict[str, bytes], raw: bytes) -> str:
    """Put a blob among the files of a layout; return its digest."""
    files[f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}"] = raw
    return digest_of(raw)


def packed(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def test_platforms(tmp_path: Path) -> None:
    """An index within the index, and one that has the platforms itself."""
    files = {"./oci-layout": b'{"imageLayoutVersion": "1.1.0"}'}
    config = Descriptor(manifest.OCI_CONFIG, digest_of(b"{}"), 2)
    rows = []
    for name in ("amd64", "arm64"):
        raw = manifest.make_manifest(
            config, [Descriptor(manifest.OCI_LAYER, digest_of(name.encode()), 5)]
        ).raw
        rows.append(Descriptor(OCI_MANIFEST, put(files, raw), len(raw), Platform(name)))
    inner = manifest.dump({"schemaVersion": 2, "manifests": [row.as_json() for row in rows]})
    outer = [Descriptor(manifest.OCI_INDEX, put(files, inner), len(inner))]
    for index in (rows, outer):
        said = {"schemaVersion": 2, "manifests": [row.as_json() for row in index]}
        path = packed({**files, "index.json": manifest.dump(said)}, tmp_path / "x.tar")
        with open_archive(path, tmp_path) as source:
            found = parse(*source.manifest(""), "test")
            assert isinstance(found, Index)
            chosen = select(found, Platform("arm64"), "test")
            image = parse(*source.manifest(chosen.digest), "test")
            assert isinstance(image, Manifest)
            assert image.layers[0].digest == digest_of(b"arm64")


def test_compressed_layers_and_links_in_a_docker_archive(made: Path, tmp_path: Path) -> None:
    """Other tools compress layers; older ones have one layer at two places."""
    diff_ids, layers, _ = contents(made / "docker.tar", tmp_path)
    with open_archive(made / "docker.tar", tmp_path) as source:
        image = parse(*source.manifest(""), "test")
        assert isinstance(image, Manifest)
        with source.blob(image.config) as stream:
            config = json.loads(stream.read())
    config["rootfs"]["diff_ids"] = [diff_ids[0], diff_ids[1], diff_ids[0], diff_ids[1]]
    row = {"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b", "c/layer.tar", "d/hard"]}
    files = {
        "c.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([row]).encode(),
        "a/layer.tar": layers[0],
        "b": gzip.compress(layers[1]),
    }
    path = packed(files, tmp_path / "x.tar")
    with tarfile.open(path, "a") as tar:
        for name, target, kind in (
            ("c/layer.tar", "../a/layer.tar", tarfile.SYMTYPE),
            ("d/hard", "b", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.linkname, member.type = target, kind
            tar.addfile(member)
    assert contents(path, tmp_path)[1] == [layers[0], layers[1], layers[0], layers[1]]


def test_no_way_out_of_a_directory(made: Path, tmp_path: Path) -> None:
    """Links of a layout's directory are not followed, whatever they lead to."""
    for link in ("index.json", "blobs", "blobs/sha256"):
        out = tmp_path / link.replace("/", "-")
        run("cp", "-a", made / "layout", out)
        (out / link).rename(tmp_path / "outside")
        (out / link).symlink_to(tmp_path / "outside")
        with pytest.raises(ImageError):
            contents(out, tmp_path)
        (tmp_path / "outside").rename(tmp_path / f"{out.name}-was")
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "nowhere"):
        with pytest.raises(ImageError, match=name):
            contents(tmp_path / name, tmp_path)


GOOD = {
    "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
    "index.json": b'{"schemaVersion": 2, "manifests": []}',
}
BAD_LAYOUTS = {
    "no images": GOOD,
    "version": {**GOOD, "oci-layout": b'{"imageLayoutVersion": "2.0.0"}'},
    "mark": {**GOOD, "oci-layout": b"[]"},
    "deep": {**GOOD, "oci-layout": b"[" * 100_000},
    "index": {**GOOD, "index.json": b"{"},
    "no index": {**GOOD, "index.json": b'{"schemaVersion": 2, "config": {}, "layers": []}'},
    "nothing": {"file": b"x"},
    "manifest": {"manifest.json": b"{}"},
    "empty list": {"manifest.json": b"[]"},
    "numbers": {"manifest.json": b"[1]"},
    "no config": {"manifest.json": b'[{"Layers": []}]'},
    "outside": {"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'},
    "layers": {"manifest.json": b'[{"Config": "c", "Layers": "c"}]', "c": b"{}"},
    "count": {"manifest.json": b'[{"Config": "c", "Layers": ["c"]}]', "c": b"{}"},
}


@pytest.mark.parametrize("name", BAD_LAYOUTS)
def test_archives_that_make_no_sense(tmp_path: Path, name: str) -> None:
    path = packed(BAD_LAYOUTS[name], tmp_path / "x.tar")
    with pytest.raises(ImageError):
        contents(path, tmp_path)


def test_a_blob_that_is_not_what_its_digest_says(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("cp", "-a", made / "layout", out)
    raw = contents(out, tmp_path)[2]
    path = out / "blobs/sha256" / digest_of(raw).removeprefix("sha256:")
    path.chmod(0o644)
    path.write_bytes(raw.replace(b"1", b"2", 1))
    with pytest.raises(ImageError, match="digest of something else"):
        contents(out, tmp_path)
    path.write_bytes(raw + b" ")
    with pytest.raises(ImageError, match="bytes, and should have"):
        contents(out, tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=16), st.booleans()))
@pytest.mark.parametrize("name", ["oci.tar", "docker.tar"])
def test_damaged_archives(made: Path, tmp_path: Path, name: str, change: tuple[int, bytes, bool]) -> None:
    """Whatever is changed in one, it is read, or refused in our words."""
    place, new, cut = change
    raw = (made / name).read_bytes()
    place %= len(raw)
    (tmp_path / "x.tar").write_bytes(raw[:place] + new + (b"" if cut else raw[place + len(new) :]))
    try:
        with open_archive(tmp_path / "x.tar", tmp_path) as source:
            image = parse(*source.manifest(""), "test")
            assert isinstance(image, Manifest)
            for row in (image.config, *image.layers):
                with source.blob(row) as stream:
                    assert len(stream.read()) <= len(raw)
    except ImageError:
        return
    assert image.media_type in (OCI_MANIFEST, DOCKER_MANIFEST)


def test_a_header_that_asks_for_much(tmp_path: Path) -> None:
    """A PAX header of 4 GiB, in a file that is as long, is not read into memory."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 4 << 30
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate((4 << 30) + 2048)
    with pytest.raises(ImageError, match="a header of more than"):
        contents(tmp_path / "x.tar", tmp_path)
