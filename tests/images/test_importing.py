"""Import: what is known by its content, what is refused, and images of storage where nothing can be mounted."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from made import Silent, archive, layout, store_at

from chlaunch.errors import ImageError
from chlaunch.image import flatten, products, roots
from chlaunch.image.finding import Wanted
from chlaunch.image.importing import Importing, import_path
from chlaunch.image.manifest import Platform, parse_config
from chlaunch.image.pull import pull
from chlaunch.image.tools import Tools
from chlaunch.image.unpack import Limits
from chlaunch.rootfs import Rootfs

if TYPE_CHECKING:
    from pathlib import Path

    from chlaunch.image.records import StoredImage
    from chlaunch.image.store import Store

BASE = {
    "bin": None,
    "bin/sh": b"shell",
    "dev": None,
    "usr": None,
    "usr/a": b"a",
    "usr/b": b"b",
    "opt": None,
    "opt/x": b"x",
}
UPPER = {
    "usr": None,
    "usr/.wh.a": b"",
    "usr/c": b"c",
    "opt": None,
    "opt/.wh..wh..opq": b"",
    "opt/y": b"y",
    "usr/d": "->b",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return storage with nothing in it."""
    return store_at(tmp_path / "storage")


@pytest.fixture
def importing(tmp_path: Path) -> Importing:
    """Return how to import."""
    (tmp_path / "tmp").mkdir()
    return Importing(Tools(os.environ, Silent()), tmp_path / "tmp", Platform("amd64"))


def seen(store: Store, image: StoredImage) -> Rootfs:
    """Return an image of storage, to look into."""
    return Rootfs(image.name, str(store.path))


def test_an_archive_is_known_by_its_content(store: Store, importing: Importing, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(archive(BASE))
    first = import_path(store, str(path), "one:1", importing, os.environ)
    path.write_bytes(archive({**BASE, "usr/a": b"A"}))
    second = import_path(store, str(path), "one:1", importing, os.environ)
    assert seen(store, second).text("usr/a") == "A"
    third = import_path(store, str(path), "other:1", importing, os.environ)
    assert first.layers[0] != second.layers[0] == third.layers[0]
    assert third.layers == second.layers
    subprocess.run(["gzip", path], check=True)
    fourth = import_path(store, f"{path}.gz", "packed:1", importing, os.environ)
    assert fourth.layers == third.layers


def test_a_directory_is_known_by_its_content(store: Store, importing: Importing, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("bin", "dev", "usr", "ch"):
        (tree / name).mkdir(parents=True)
    (tree / "usr/file").write_text("one")
    (tree / "ch/environment").write_text("A=1\n")
    os.mknod(tree / "dev/null", 0o20666, os.makedev(1, 3))
    (tree / "bin/su").write_text("x")
    (tree / "bin/su").chmod(0o4755)
    for path in tree.rglob("*"):
        os.utime(path, (1, 1))  # SquashFS has whole seconds
    images = [import_path(store, str(tree), f"{name}:1", importing, os.environ) for name in ("a", "b")]
    assert images[0].layers == images[1].layers
    found = seen(store, images[0])
    assert (found.text("usr/file"), found.mode("bin/su"), found.mode("dev/null")) == ("one", 0o100755, None)
    said = parse_config(images[0].config, "test")
    assert (said.environment, said.platform) == (("A=1",), Platform("amd64"))
    assert found.is_directory("proc")
    (tree / "usr/file").write_text("two")
    os.utime(tree / "usr/file", (2, 2))
    changed = import_path(store, str(tree), "a:1", importing, os.environ)
    assert changed.layers[0] != images[0].layers[0]
    assert seen(store, changed).text("usr/file") == "two"
    squash = tmp_path / "x.sqfs"
    products.write_squash(roots.Root(tree), squash, importing.tools, xattrs=True)
    assert import_path(store, str(squash), "s:1", importing, os.environ).layers == changed.layers


def test_whatever_it_is(
    store: Store, importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layouts, archives of them and of docker save, by path or by name alone."""
    layout(tmp_path / "layout", [BASE, UPPER])
    monkeypatch.chdir(tmp_path)
    subprocess.run(["tar", "-cf", "archived", "-C", "layout", "."], check=True)
    subprocess.run(["skopeo", "copy", "-q", "oci:layout:1", "docker-archive:saved.tar"], check=True)
    for number, word in enumerate(("layout", "./layout", "./layout:1", "archived", "saved.tar")):
        image = import_path(store, word, f"x:{number}", importing, os.environ)
        assert len(image.layers) == 3, word
        assert (seen(store, image).names("opt"), seen(store, image).text("usr/a")) == (("y",), "")


def test_what_is_no_image(store: Store, importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("text")
    (tmp_path / "none.tar").write_bytes(archive({}))
    (tmp_path / "cut.tar").write_bytes(archive(BASE)[:700])
    (tmp_path / "x.sqfs").write_bytes(b"hsqs")
    os.mkfifo(tmp_path / "fifo.tar")
    for name in ("empty", "text", "none.tar", "cut.tar", "x.sqfs", "fifo.tar", "nowhere"):
        with pytest.raises(ImageError):
            import_path(store, str(tmp_path / name), "x:1", importing, os.environ)
    assert store.images() == []
    for name in ("tmp", "storage/tmp", "storage/l"):
        assert list((tmp_path / name).iterdir()) == []


def test_limits(store: Store, importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(archive(BASE))
    few = Importing(importing.tools, importing.temporary, limits=Limits(members=3))
    with pytest.raises(ImageError) as failure:
        import_path(store, str(tmp_path / "x.tar"), "x:1", few, os.environ)
    assert "--max-members" in failure.value.hint


def test_a_full_disk(tmp_path: Path) -> None:
    """A file system of 1 MiB, in a mount namespace of its own."""
    tree = {**BASE, "usr/large": os.urandom(4 << 20)}
    (tmp_path / "x.tar").write_bytes(archive(tree))
    (tmp_path / "small").mkdir()
    (tmp_path / "tmp").mkdir()
    script = """
import os, sys
from pathlib import Path
from chlaunch.cli.convert import convert_image
from chlaunch.errors import ChlaunchError
for words in (["-o", "ch-image", "x:1"], ["-o", "dir", "small/out"], ["-o", "oci", "small/oci"], ["-o", "tar", "small/x.tar"]):
    try:
        convert_image(["-q", *words[:2], "x.tar", words[2]], {**os.environ, "CH_IMAGE_STORAGE": os.path.abspath("small/storage"), "TMPDIR": os.path.abspath("tmp")})
    except ChlaunchError as error:
        print(error.message, "|", error.hint)
    print(sorted(path.name for path in Path("small").iterdir() if path.name != "storage"), list(Path("tmp").iterdir()))
"""
    mount = 'mount -t tmpfs -o size=1m none small && exec "$@"'
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            mount,
            "sh",
            sys.executable,
            "-c",
            script,
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[] []"] * 4
    failures = [line for line in lines if not line.startswith("[")]
    assert len(failures) == 4
    assert all("No space left on device" in line and "room" in line for line in failures), failures


@pytest.mark.parametrize("refused", ["", "users can't mount overlays here"])
def test_mounted_or_copied(
    store: Store, importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """An image of storage looks the same either way."""
    source = layout(tmp_path / "layout", [BASE, UPPER])
    image = pull(store, source, Wanted("x:1", "x:1", "1"), Silent())
    assert len(image.layers) == 3
    if refused:  # as on a kernel before 5.11, to which an image came from a newer one
        monkeypatch.setattr(flatten, "reason", lambda *_: refused)
    (tmp_path / "work").mkdir()
    with roots.mounted(store, image, tmp_path / "work", importing.tools) as root:
        assert bool(root.inside) != bool(refused)
        products.write_tar(root, tmp_path / "x.tar", importing.tools, xattrs=True)
    with tarfile.open(tmp_path / "x.tar") as made:
        names = {name.removeprefix("./") for name in made.getnames()}
        assert {"bin/sh", "usr/b", "usr/c", "usr/d", "opt/y", "ch/environment", "proc"} <= names
        assert not {"usr/a", "opt/x"} & names
        assert not any(".wh." in name for name in names)
        assert all(member.pax_headers == {} for member in made)
        extracted = made.extractfile("./usr/c")
        assert extracted is not None
        assert extracted.read() == b"c"
