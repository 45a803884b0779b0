"""Rootfs sees the same in an image of every kind, and of layers what the kernel's overlayfs shows."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import ImageError
from chlaunch.rootfs import Rootfs, open_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("directory", "SquashFS", "SIF", "storage")
PARTITION, LABELS = 0x4004, 0x4003
SQUASHFS, EXT3, ENCRYPTED = 1, 2, 5
PRIMARY, DATA = 2, 3

NO_STORAGE = "/no/storage"


def squash(source: Path, file: Path) -> Path:
    """Make a SquashFS file of a directory."""
    words = ["mksquashfs", str(source), str(file), "-noappend", "-quiet", "-no-progress", "-comp", "zstd"]
    subprocess.run(words, check=True)
    return file


def sif(content: bytes, file: Path, *rows: tuple[int, int, int], **header: int) -> Path:
    """Write a SIF whose descriptors are rows (type, file system, role), all of one partition."""
    start = 8192  # aligned as sif does it
    table = b""
    for kind, system, role in rows:
        table += struct.pack("<i?IIIqqq", kind, True, 1, 1, 0, start, len(content), len(content))  # noqa: FBT003
        table += bytes(32 + 128) + struct.pack("<ii3s", system, role, b"02").ljust(384, b"\0")
    count, offset = header.get("count", len(rows)), header.get("offset", 4096)
    top = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\x0002\0" + bytes(16 + 16)
    top += struct.pack("<qqqqqq", 0, count, offset, len(table), start, len(content))
    file.write_bytes((top.ljust(4096, b"\0") + table).ljust(start, b"\0") + content[: header.get("cut")])
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a directory with links of every kind, beside a file that no link may lead to."""
    root = tmp_path / "root"
    for name in ("a/b", "dev", "proc", "sys", "closed"):
        (root / name).mkdir(parents=True)
    (root / "a/b/file").write_text("inside")
    (root / "a/b/file").chmod(0o640)
    (root / "a/latin").write_bytes(b"caf\xe9")
    (tmp_path / "file").write_text("outside")
    os.mkfifo(root / "fifo")
    for name, target in {
        "absolute": "/a/b",
        "relative": "a/b",
        "slashes": "//a/.//b/",
        "up": "../../../../a/b/file",
        "chain": "absolute/file",
        "to-slash": "a/b/file/",
        "loop": "loop",
        "pair": "riap",
        "riap": "/pair",
        "out": "../file",
        "dangling": "/nowhere/../a/b/file",
        "root": "/",
    }.items():
        (root / name).symlink_to(target)
    for number in range(41):
        (root / f"long{number}").symlink_to(f"long{number - 1}" if number else "a/b/file")
    return root


@pytest.fixture(params=KINDS)
def rootfs(request: pytest.FixtureRequest, tmp_path: Path, source: Path) -> Rootfs:
    """Return the image of a kind; in storage a part of it is in an upper layer."""
    if request.param == "directory":
        return open_image(str(source), NO_STORAGE)
    if request.param == "storage":
        layers(tmp_path / "store", "demo+1", ["1a", "2"])
        shutil.copytree(
            source,
            tmp_path / "store/l/1a",
            symlinks=True,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("fifo"),
        )
        os.mkfifo(tmp_path / "store/l/1a/fifo")
        (tmp_path / "store/l/1a/a/latin").unlink()
        (tmp_path / "store/l/1a/a/b/file").write_text("below")
        shutil.copytree(source / "a", tmp_path / "store/l/2/a")
        return open_image("demo:1", str(tmp_path / "store"))
    file = squash(source, tmp_path / "image.sqfs")
    if request.param == "SIF":
        rows = ((LABELS, 0, 0), (PARTITION, EXT3, DATA), (PARTITION, SQUASHFS, PRIMARY))
        file = sif(file.read_bytes(), tmp_path / "image.sif", *rows)
    return open_image(str(file), NO_STORAGE)


def layers(storage: Path, name: str, names: list[str]) -> None:
    """Make an image in storage of empty layers."""
    (storage / "images" / name).mkdir(parents=True)
    (storage / "images" / name / "layers").write_text("".join(f"{layer}\n" for layer in names))
    for layer in names:
        (storage / "l" / layer).mkdir(parents=True, exist_ok=True)


def test_links_are_followed_inside(rootfs: Rootfs) -> None:
    for path in (
        "absolute/file",
        "/relative/file",
        "slashes/file",
        "up",
        "chain",
        "a/../../a/./b/file",
        "root/root/up",
        "long39",
    ):
        assert rootfs.locate(path) == "/a/b/file", path
        assert rootfs.text(path) == "inside", path
    for path in (
        "loop",
        "pair",
        "out",
        "dangling",
        "a/b/file/x",
        "a/b/file/",
        "a/b/file/..",
        "to-slash",
        "long40",
        "no",
        "no/..",
        "a\0b",
        "\udfff",
        "x" * 300,
        "fifo/x",
        "a/" * 9999,
    ):
        assert rootfs.locate(path) is None, path
        assert (rootfs.mode(path), rootfs.open(path), rootfs.text(path)) == (None, None, ""), path
        assert not rootfs.is_file(path), path
        assert not rootfs.is_directory(path), path
    assert [rootfs.locate(path) for path in ("", "/", "..", "root", "absolute/", "a/b/..")] == [
        "/",
        "/",
        "/",
        "/",
        "/a/b",
        "/a",
    ]


def test_what_is_there(rootfs: Rootfs) -> None:
    assert rootfs.names("absolute") == ("file",)
    assert rootfs.names("/a") == ("b", "latin")
    assert (
        rootfs.names("a/b/file")
        == rootfs.names("nowhere")
        == rootfs.names("loop")
        == rootfs.names("fifo")
        == ()
    )
    assert len(rootfs.names("/")) == 6 + 12 + 41
    assert rootfs.mode("chain") == stat.S_IFREG | 0o640
    assert rootfs.is_file("chain")
    assert not rootfs.is_file("a")
    assert rootfs.is_directory("absolute")
    assert (rootfs.is_file("fifo"), rootfs.is_directory("fifo"), rootfs.open("fifo")) == (False, False, None)
    assert stat.S_ISFIFO(rootfs.mode("fifo") or 0)
    assert (rootfs.open("a"), rootfs.text("a")) == (None, "")
    assert (rootfs.text("chain", 3), rootfs.text("/a/latin")) == ("ins", "caf\N{REPLACEMENT CHARACTER}")
    file = rootfs.open("chain")
    assert file
    with file:
        assert (file.seek(2), file.read(2), file.seek(-1, os.SEEK_END), file.read(), file.tell()) == (
            2,
            b"si",
            5,
            b"e",
            6,
        )


def test_a_directory_is_not_left_by_a_link_that_comes_later(source: Path, tmp_path: Path) -> None:
    """What was a directory when it was looked at may be a link when it is opened."""
    tree = Rootfs(str(source))._tree  # noqa: SLF001  the moment between is in here
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_text("outside")
    (source / "a").rename(source / "old")
    (source / "a").symlink_to(tmp_path)
    with pytest.raises(OSError, match="Not a directory"):
        tree.open(("a", "b", "file"))
    with pytest.raises(OSError, match="Not a directory"):
        tree.names(("a", "b"))
    assert tree.mode(("a", "b", "file")) is None


@pytest.mark.parametrize("kind", ["directory", "SquashFS"])
def test_links_can_not_take_long(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    (root / "a/a/a/a").mkdir(parents=True)
    for number in range(39):
        (root / f"l{number}").symlink_to("a/../" * 800 + f"l{number + 1}")
    (root / "l39").symlink_to("a")
    image = Rootfs(str(root if kind == "directory" else squash(root, tmp_path / "image")))
    started = time.monotonic()
    assert image.locate("l0") is None
    assert image.locate("l39/a") == "/a/a"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("kind", KINDS)
def test_identity(tmp_path: Path, source: Path, kind: str) -> None:
    storage = tmp_path / "store"
    layers(storage, "demo", ["1a", "2"])

    def squashed() -> Rootfs:
        return Rootfs(str(squash(source, tmp_path / "image")))

    def packed() -> Rootfs:
        content = squash(source, tmp_path / "image").read_bytes()
        return Rootfs(str(sif(content, tmp_path / "sif", (PARTITION, SQUASHFS, PRIMARY))))

    def touch() -> None:
        (source / "etc").mkdir(exist_ok=True)
        (source / "etc/new").touch()

    def tag() -> None:
        (storage / "images/demo/layers").write_text("1a\n")

    make: dict[str, tuple[Callable[[], Rootfs], Callable[[], None]]] = {
        "directory": (lambda: Rootfs(str(source)), touch),
        "SquashFS": (squashed, touch),
        "SIF": (packed, touch),
        "storage": (lambda: Rootfs("demo", str(storage)), tag),
    }
    again, change = make[kind]
    first = again()
    assert first.identity() == first.identity() == Rootfs(first.path, first.storage).identity()
    assert len(first.identity()) == 32
    before = first.identity()
    change()
    changed = again()
    assert changed.identity() != before
    assert changed.sealed == {"directory": "", "storage": "an image in storage"}.get(kind, f"a {kind} file")


@pytest.mark.parametrize(
    "path", ["usr/lib/x86_64-linux-gnu/libnew.so", "opt/app", "var/lib/dpkg/status", "new"]
)
def test_identity_of_a_directory(source: Path, path: str) -> None:
    (source / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (source / "var/lib/dpkg").mkdir(parents=True)
    (source / "opt").symlink_to("usr/lib")
    (source / "var/lib/dpkg/status").write_text("a")
    before = Rootfs(str(source)).identity()
    (source / path).write_text("longer")
    assert Rootfs(str(source)).identity() != before


def test_identity_of_what_is_not_there(tmp_path: Path) -> None:
    gone = (Rootfs(str(tmp_path / "gone")), Rootfs(str(tmp_path / "gone"), unseen="an EROFS file"))
    assert [(image.identity() != "", image.names("/"), image.sealed) for image in gone] == [
        (True, (), "")
    ] * 2


class TestLayers:
    """The kernel is asked what a stack of random layers shows."""

    NAMES = ("a", "b", "c", "d")

    def fill(self, generator: random.Random, directory: Path, depth: int) -> None:
        for name in self.NAMES:
            path = directory / name
            match generator.choice(("directory", "directory", "file", "link", "whiteout", "none")):
                case "directory" if depth:
                    path.mkdir()
                    self.fill(generator, path, depth - 1)
                    if generator.random() < 0.3:
                        os.setxattr(path, "user.overlay.opaque", b"y")
                case "file":
                    path.write_text(str(generator.random()))
                case "link":
                    path.symlink_to(generator.choice(("a", "../b", "/c/d", "e")))
                case "whiteout":
                    os.mknod(path, stat.S_IFCHR, 0)

    def shown(self, storage: Path, names: list[str]) -> dict[str, str]:
        """Return what overlayfs shows: each path with its kind and what it holds."""
        lower = ":".join(f"l/{name}" for name in reversed(names))
        script = (
            f"mount -t overlay overlay -o userxattr,lowerdir={lower} /mnt && cd /mnt &&"
            """ find . -mindepth 1 -printf '%P\\t%y\\t%l\\n' | while IFS='\t' read -r path kind target; do
            case $kind in f) target=$(cat "./$path") ;; esac; printf '%s\t%s %s\n' "$path" "$kind" "$target"; done"""
        )
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
        done = subprocess.run(command, cwd=storage, check=True, capture_output=True, text=True)
        return {path: rest for path, _, rest in (line.partition("\t") for line in done.stdout.splitlines())}

    def seen(self, image: Rootfs) -> dict[str, str]:
        """Return the same, as we see it."""
        tree = image._tree  # noqa: SLF001  links are not to be followed
        found = {}
        todo = [(name,) for name in tree.names(())]
        while todo:
            parts = todo.pop()
            mode = tree.mode(parts) or 0
            path = "/".join(parts)
            if stat.S_ISDIR(mode):
                found[path] = "d "
                todo.extend((*parts, name) for name in tree.names(parts))  # type: ignore[misc]
            elif stat.S_ISLNK(mode):
                found[path] = f"l {tree.target(parts)}"
            else:
                found[path] = f"f {image.text(path)}"
        return found

    @pytest.mark.parametrize("seed", range(12))
    def test_random_stacks(self, tmp_path: Path, seed: int) -> None:
        generator = random.Random(seed)  # noqa: S311
        names = [f"{number:x}" for number in range(2 + seed % 4)]
        layers(tmp_path, "demo", names)
        for name in names:
            self.fill(generator, tmp_path / "l" / name, 3)
        shown = self.shown(tmp_path, names)
        assert self.seen(Rootfs("demo", str(tmp_path))) == shown
        assert shown

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "its list of layers is empty, cut off or too long"),
            ("1a\n2", "its list of layers is empty, cut off or too long"),
            ("1a\n\n", "can't use layer 2: "),
            ("1a\n../../etc\n", "can't use layer 2: ../../etc"),
            ("1a\n2:3\n", "can't use layer 2: 2:3"),
            ("1a\n2\0\n", "its list of layers is empty, cut off or too long"),
            ("nowhere\n", "layer l/nowhere: No such file or directory"),
            ("1a\n" * 501, "can't use layer 501: 1a"),
            (None, "layers: No such file or directory"),
        ],
    )
    def test_damaged(self, tmp_path: Path, text: str | None, message: str) -> None:
        """The words are those of ch-run (tests/runtime/test_images.py)."""
        layers(tmp_path, "demo", ["1a", "2"])
        (tmp_path / "images/demo/layers").unlink()
        if text is not None:
            (tmp_path / "images/demo/layers").write_text(text)
        with pytest.raises(ImageError) as caught:
            open_image("demo", str(tmp_path))
        assert caught.value.message == f"can't use image in storage: demo: {message}"
        assert caught.value.hint


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], {}, "it has no partition with a root file system"),
        ([(LABELS, SQUASHFS, PRIMARY)], {}, "it has no partition with a root file system"),
        ([(PARTITION, SQUASHFS, DATA)], {}, "it has no partition with a root file system"),
        ([(PARTITION, EXT3, PRIMARY)], {}, "its root file system is no SquashFS"),
        ([(PARTITION, ENCRYPTED, PRIMARY)], {}, "its root file system is encrypted"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"count": 1 << 40}, "its SIF header makes no sense"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"count": -1}, "its SIF header makes no sense"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"offset": 1 << 60}, "its SIF header makes no sense"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"offset": -1}, "its SIF header makes no sense"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"offset": 3}, "it has no partition with a root file system"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"count": 900}, "there is no SquashFS where its SIF header says"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"cut": 0}, "it ends after 8192 of 8288 bytes"),
        ([(PARTITION, SQUASHFS, PRIMARY)], {"cut": 500}, "it ends after 500 of"),
    ],
)
def test_damaged_sif(
    source: Path, tmp_path: Path, rows: list[tuple[int, int, int]], header: dict[str, int], message: str
) -> None:
    """The words are those of ch-run (tests/runtime/test_images.py)."""
    content = squash(source, tmp_path / "image").read_bytes()
    if "no SquashFS where" in message:
        content = b"x" + content
    path = sif(content, tmp_path / "image.sif", *rows, **header)
    with pytest.raises(ImageError) as caught:
        open_image(str(path), NO_STORAGE)
    assert caught.value.message.startswith(f"can't use image: {path}: {message}")
    with pytest.raises(ImageError):
        Rootfs(str(path)).names("/")


def test_a_file_that_goes_while_it_is_open(source: Path, tmp_path: Path) -> None:
    file = squash(source, tmp_path / "image")
    opened = Rootfs(str(file))
    assert opened.text("chain") == "inside"
    file.unlink()
    assert opened.text("a/latin")
    assert Rootfs(str(file)).text("chain") == ""
