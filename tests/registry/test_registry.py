"""The client and a real registry: what one puts there, the other finds, and so does skopeo."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from pictures import picture

from chlaunch.errors import RegistryError, StorageError
from chlaunch.image.manifest import Descriptor, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from certificates import Authority
    from registries import RegistryServer

    from chlaunch.image.registry import Registry


def test_what_is_pushed_is_pulled(
    plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    one = picture(1)
    registry = connect(f"{plain.host}/round/trip:1")
    assert not registry.has_blob(one.layer)
    done: list[int] = []
    path = tmp_path / "layer"
    path.write_bytes(one.blobs[one.layer.digest])
    registry.put_blob(one.layer, path, done.append)
    assert sum(done) == one.layer.size
    assert registry.has_blob(one.layer)
    one.push(registry, tmp_path)
    assert registry.resolve() == (one.manifest.digest, one.manifest.media_type)
    assert registry.manifest("1") == (one.manifest.raw, one.manifest.media_type)
    assert registry.manifest(one.manifest.digest)[0] == one.manifest.raw
    done.clear()
    registry.download(one.layer, tmp_path / "back", done.append)
    assert (tmp_path / "back").read_bytes() == one.blobs[one.layer.digest]
    assert sum(done) == one.layer.size


def test_a_stream_from_the_middle(
    plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    one = picture(2)
    registry = connect(f"{plain.host}/stream:1")
    one.push(registry, tmp_path)
    with registry.blob(one.layer) as stream:
        assert stream.read() == one.blobs[one.layer.digest]
    with registry.blob(one.layer, 1000) as stream:
        assert stream.read(10) == one.blobs[one.layer.digest][1000:1010]
    with registry.blob(one.layer, one.layer.size) as stream:
        assert stream.read() == b""


def test_an_empty_blob(plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    nothing = Descriptor("application/octet-stream", digest_of(b""), 0)
    registry = connect(f"{plain.host}/empty:1")
    registry.put_blob(nothing, path, lambda _: None)
    assert registry.has_blob(nothing)
    registry.download(nothing, tmp_path / "back", lambda _: None)
    assert (tmp_path / "back").read_bytes() == b""


def test_a_blob_is_mounted_from_a_neighbour(
    plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    one = picture(3)
    one.push(connect(f"{plain.host}/mount/here:1"), tmp_path)
    other = connect(f"{plain.host}/mount/there:1")
    assert not other.has_blob(one.layer)
    assert not other.mount(one.layer, "mount/nowhere")
    assert other.mount(one.layer, "mount/here")
    assert other.has_blob(one.layer)


def test_a_download_goes_on(plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path) -> None:
    one = picture(4)
    registry = connect(f"{plain.host}/resume:1")
    one.push(registry, tmp_path)
    path = tmp_path / "part"
    path.write_bytes(one.blobs[one.layer.digest][:200_000])
    done: list[int] = []
    registry.download(one.layer, path, done.append)
    assert path.read_bytes() == one.blobs[one.layer.digest]
    assert sum(done) == one.layer.size
    sent = plain.log.read_text().split(f'/v2/resume/blobs/{one.layer.digest} HTTP/1.1" 206 ')
    assert int(sent[1].split()[0]) == one.layer.size - 200_000


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"x" * 1_000_000], ids=["beginning", "too much"])
def test_a_wrong_beginning_is_thrown_away(
    plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path, wrong: bytes
) -> None:
    one = picture(5)
    registry = connect(f"{plain.host}/wrong:1")
    one.push(registry, tmp_path)
    path = tmp_path / "part"
    path.write_bytes(wrong)
    done: list[int] = []
    registry.download(one.layer, path, done.append)
    assert path.read_bytes() == one.blobs[one.layer.digest]
    assert sum(done) == one.layer.size


def test_a_link_is_not_written_through(
    plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    one = picture(6)
    registry = connect(f"{plain.host}/link:1")
    one.push(registry, tmp_path)
    (tmp_path / "part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="can't write"):
        registry.download(one.layer, tmp_path / "part", lambda _: None)
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_not_there(plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path) -> None:
    registry = connect(f"{plain.host}/nothing/here:9")
    with pytest.raises(
        RegistryError, match=f"{plain.host}/nothing/here:9: not found: MANIFEST_UNKNOWN"
    ) as caught:
        registry.resolve()
    assert "tag" in caught.value.hint
    with pytest.raises(RegistryError, match="not found"):
        registry.download(picture(7).layer, tmp_path / "blob", lambda _: None)


def test_a_file_that_is_not_what_it_is_said_to_be(
    plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path
) -> None:
    one = picture(8)
    registry = connect(f"{plain.host}/lie:1")
    path = tmp_path / "layer"
    path.write_bytes(b"short")
    with pytest.raises(StorageError, match="not the"):
        registry.put_blob(one.layer, path, lambda _: None)
    path.write_bytes(b"x" * one.layer.size)
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        registry.put_blob(one.layer, path, lambda _: None)


def test_many_threads(closed: RegistryServer, connect: Callable[..., Registry], tmp_path: Path) -> None:
    user = {"CH_IMAGE_USERNAME": "alice", "CH_IMAGE_PASSWORD": "open sesame"}
    registry = connect(f"{closed.host}/threads:1", user, authenticate=True)
    many = [picture(seed, 100_000) for seed in range(20, 28)]
    for one in many:
        one.push(registry, tmp_path, str(one.layer.size))
    fresh = connect(f"{closed.host}/threads:1", user, authenticate=True)
    with ThreadPoolExecutor(8) as pool:
        paths = [tmp_path / f"thread{number}" for number in range(len(many))]
        jobs = [
            pool.submit(fresh.download, one.layer, path, lambda _: None)
            for one, path in zip(many, paths, strict=True)
        ]
        for job in jobs:
            job.result()
    for one, path in zip(many, paths, strict=True):
        assert path.read_bytes() == one.blobs[one.layer.digest]


@pytest.fixture
def skopeo(authority: Authority, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs skopeo, which believes the authority, too."""
    if shutil.which("skopeo") is None:
        pytest.skip("there is no skopeo: run tests/setup.sh test")
    directory = tmp_path / "trusted"
    directory.mkdir()
    shutil.copy(authority.certificate, directory)
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def run(verb: str, *words: object) -> str:
        side = ["--src-cert-dir", "--dest-cert-dir"] if verb == "copy" else ["--cert-dir"]
        trust = [word for option in side for word in (option, str(directory))]
        argv = ["skopeo", "--policy", str(policy), verb, *trust, *map(str, words)]
        return subprocess.run(
            argv, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin"}
        ).stdout

    return run


def test_skopeo_takes_what_we_push_and_we_what_it_pushes(
    closed: RegistryServer, connect: Callable[..., Registry], skopeo: Callable[..., str], tmp_path: Path
) -> None:
    user = {"CH_IMAGE_USERNAME": "alice", "CH_IMAGE_PASSWORD": "open sesame"}
    one = picture(9)
    ours = connect(f"{closed.host}/ours:1", user, authenticate=True)
    one.push(ours, tmp_path)
    layout = f"oci:{tmp_path / 'layout'}:1"
    skopeo("copy", "--src-creds=alice:open sesame", f"docker://{closed.host}/ours:1", layout)
    assert (tmp_path / "layout/blobs/sha256" / one.layer.digest[7:]).read_bytes() == one.blobs[
        one.layer.digest
    ]
    theirs = connect(f"{closed.host}/theirs:1", user, authenticate=True)
    skopeo("copy", "--dest-creds=alice:open sesame", layout, f"docker://{closed.host}/theirs:1")
    assert theirs.resolve()[0] == one.manifest.digest
    skopeo(
        "copy", "--dest-creds=alice:open sesame", "--format=v2s2", layout, f"docker://{closed.host}/theirs:2"
    )
    raw, kind = theirs.manifest("2")
    assert kind == "application/vnd.docker.distribution.manifest.v2+json"
    assert json.loads(raw)["layers"][0]["size"] == one.layer.size
    said = skopeo("inspect", "--creds=alice:open sesame", f"docker://{closed.host}/ours:1")
    assert json.loads(said)["Digest"] == one.manifest.digest
