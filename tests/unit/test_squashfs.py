"""The SquashFS reader against what mksquashfs makes of real directories, and against damage."""

from __future__ import annotations

import lzma
import os
import random
import stat
import struct
import subprocess
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from chlaunch.errors import ImageError
from chlaunch.launch import flavour
from chlaunch.launch.image import Asked
from chlaunch.launch.inspect import inspect
from chlaunch.rootfs import Rootfs, open_image
from chlaunch.squashfs import decompress
from chlaunch.squashfs.blocks import Blocks
from chlaunch.squashfs.tree import Squashfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chlaunch.trees import Parts

# Options of mksquashfs: every compression and block layout there is.
LAYOUTS = (
    "-comp gzip",
    "-comp gzip -no-fragments -b 8192",
    "-comp gzip -always-use-fragments -b 4096",
    "-comp xz -Xbcj x86 -b 65536",
    "-comp lzma",
    "-comp zstd -b 1M",
    "-comp zstd -no-sparse -no-duplicates",
    "-comp lz4",
    "-comp lz4 -Xhc -b 4096",
    "-noI -noId -noD -noF -noX",
    "-comp zstd -all-root -no-exports -no-xattrs",
)


def squash(source: Path, file: Path, options: str = "") -> Path:
    """Make a SquashFS file of a directory."""
    words = ["mksquashfs", str(source), str(file), "-noappend", "-quiet", "-no-progress", *options.split()]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return file


def opened(file: Path) -> Squashfs:
    """Return the reader of a file."""
    return Squashfs(Blocks(os.open(file, os.O_RDONLY), 0, file.name))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a file of every kind and of many sizes."""
    root = tmp_path_factory.mktemp("source") / "root"
    generator = random.Random(4)  # noqa: S311  the same bytes every time
    for name in ("empty", "deep/er/and/deeper", "many", "few", "files"):
        (root / name).mkdir(parents=True)
    for number in range(1000):
        (root / "many" / f"{number:x}-{'long' * (number % 60)}").touch()
    for number in range(256):
        (root / "few" / f"{number}").symlink_to(f"../many/{number:x}-")
    for size in (0, 1, 4095, 4096, 4097, 131071, 131072, 131073, 1 << 20, 700_001):
        text = bytes(generator.choices(b"abcdefgh \n", k=min(size, 20000)))
        (root / "files" / f"text-{size}").write_bytes((text * (size // 20000 + 1))[:size])
    for size in (5, 4096, 200_000):
        (root / "files" / f"noise-{size}").write_bytes(generator.randbytes(size))
    with (root / "files/sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1_000_000)
        file.write(b"middle")
        file.truncate(2_500_001)
    (root / "files/holes").touch()
    os.truncate(root / "files/holes", 1 << 20)
    (root / "files" / "other-name").hardlink_to(root / "files/text-4097")
    (root / "files" / ("n" * 255)).write_text("long")
    Path(os.fsdecode(bytes(root) + b"/files/\xff\xc3\xa4")).write_text("bytes")
    for name, target in {
        "absolute": "/deep/er",
        "loop": "loop",
        "dangling": "no/where",
        "far": "x" * 4000,
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    (root / "files/text-1").chmod(0o4755)
    (root / "empty").chmod(0o1777)
    os.setxattr(root / "deep", "user.note", b"makes it an extended inode")
    os.setxattr(root / "files/text-4096", "user.note", b"likewise")
    return root


def below(root: Path) -> Iterator[tuple[Parts, os.stat_result]]:
    """Give what is in a directory of the host."""
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(above, name)
            yield path.relative_to(root).parts, path.lstat()


def compare(tree: Squashfs, root: Path, *, contents: bool = True) -> int:
    """Compare every path's mode, names, link and maybe content; return how many there were."""
    assert sorted(tree.names(())) == sorted(os.listdir(root))  # noqa: PTH208
    count = 0
    for parts, status in below(root):
        here = root.joinpath(*parts)
        assert tree.mode(parts) == status.st_mode, parts
        if stat.S_ISLNK(status.st_mode):
            assert tree.target(parts) == str(here.readlink())
        elif stat.S_ISDIR(status.st_mode):
            assert sorted(tree.names(parts)) == sorted(os.listdir(here))  # noqa: PTH208
        elif contents and stat.S_ISREG(status.st_mode):
            with tree.open(parts) as file:
                assert file.read() == here.read_bytes(), parts
        count += 1
    return count


@pytest.mark.parametrize("options", LAYOUTS)
def test_everything_is_as_in_the_directory(source: Path, tmp_path: Path, options: str) -> None:
    tree = opened(squash(source, tmp_path / "image", options))
    assert compare(tree, source) > 1000
    for parts in (
        ("nowhere",),
        ("many", "0"),
        ("many", "zzzz"),
        ("many", "\udfff"),
        ("null", "x"),
        ("few", ""),
    ):
        assert tree.mode(parts) is None, parts


def test_seeking_reads_only_what_is_asked_for(source: Path, tmp_path: Path) -> None:
    """As readers of ELF files do: here a few bytes, there a few."""
    tree = opened(squash(source, tmp_path / "image", "-comp zstd -b 16K"))
    generator = random.Random(5)  # noqa: S311
    for name in ("text-700001", "noise-200000", "sparse"):
        content = (source / "files" / name).read_bytes()
        with tree.open(("files", name)) as file:
            for _ in range(100):
                start, length = generator.randrange(len(content) + 9), generator.randrange(40000)
                assert file.seek(start) == start
                assert file.read(length) == content[start : start + length]
            assert file.seek(-7, os.SEEK_END) == len(content) - 7
            assert file.read() == content[-7:]
            with pytest.raises(OSError, match="Invalid argument"):
                file.seek(-1)
    for parts, error in ((("files",), OSError), (("nowhere",), FileNotFoundError), (("null",), OSError)):
        with pytest.raises(error):
            tree.open(parts)
    for read in (tree.names, tree.target):
        with pytest.raises(OSError, match=r"Not a directory|Invalid argument"):
            read(("files", "sparse"))


def test_a_real_image(image_ompi4: Path, tmp_path: Path) -> None:
    tree = opened(squash(image_ompi4, tmp_path / "image", "-comp zstd -Xcompression-level 1"))
    assert compare(tree, image_ompi4, contents=False) > 5000
    image = Rootfs(str(tmp_path / "image"))
    asked = Asked(("python3", "-m", "mpi4py"), {})
    seen, told = (inspect(rootfs, flavour.load(), asked) for rootfs in (image, Rootfs(str(image_ompi4))))
    assert replace(seen, path=told.path, sealed="") == told
    assert seen.mpi
    library = image.locate("/usr/lib/x86_64-linux-gnu/libmpi.so.40") or ""
    file = image.open(library)
    assert file
    with file:
        assert file.read() == Path(f"{image_ompi4}{library}").read_bytes()


def test_there_is_an_end_to_reading_names(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may say that it has 4 GiB, and every look for a name in it would read them."""
    file = squash(source, tmp_path / "image")
    message = "makes no sense, or is too large"
    with monkeypatch.context() as patch:
        patch.setattr("chlaunch.squashfs.tree.LISTING_MOST", 50_000)
        tree = opened(file)
        assert len(tree.names(("few",))) == 256
        with pytest.raises(ImageError, match=message):
            tree.names(("many",))
        assert tree.mode(("many", f"{999:x}-{'long' * 39}")), "the index leads near it"
    monkeypatch.setattr("chlaunch.squashfs.tree.NAMES_MOST", 1000)
    tree = opened(file)
    assert [tree.mode(("few", f"9{number:03}")) for number in range(200)] == [None] * 200
    monkeypatch.setattr("chlaunch.squashfs.tree.LISTING_FREE", 0)
    with pytest.raises(ImageError, match=message):
        [tree.mode(("few", f"8{number:03}")) for number in range(200)]


def explore(file: Path, most: int = 400) -> dict[Parts, object]:
    """Read all there is behind up to so many names; what is damaged is an ImageError."""
    found: dict[Parts, object] = {}
    try:
        tree = opened(file)
    except ImageError as error:
        return {(): error}
    todo: list[Parts] = [()]
    while todo and len(found) < most:
        parts = todo.pop()
        try:
            mode = tree.mode(parts) or 0
            if stat.S_ISDIR(mode):
                names = sorted(tree.names(parts))
                todo.extend((*parts, name) for name in names)
                found[parts] = names
            elif stat.S_ISLNK(mode):
                found[parts] = tree.target(parts)
            elif stat.S_ISREG(mode):
                with tree.open(parts) as content:
                    found[parts] = content.read(1 << 16)
                    content.seek(-9, os.SEEK_END)
                    content.read()
        except ImageError as error:
            found[parts] = error
        except OSError as error:
            # A file of impossible size is not opened; one shorter than 9 bytes has no place there.
            assert error.errno in (27, 22), parts  # noqa: PT017  EFBIG, EINVAL
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small directory, all of whose content can be compressed."""
    root = tmp_path_factory.mktemp("small") / "root"
    (root / "bin").mkdir(parents=True)
    for number in range(60):
        (root / "bin" / f"tool{number}").write_text(f"{number} is a number\n" * (number * 30))
        (root / "bin" / f"link{number}").symlink_to(f"tool{number}")
    return root


@pytest.mark.parametrize(
    "options", ["-comp gzip -b 4096", "-comp zstd", "-comp xz", "-comp lz4", "-noI -noD -noF"]
)
def test_flipped_bits(small: Path, tmp_path: Path, options: str) -> None:
    """Damage is an ImageError, or is not noticed; it is never anything else, nor takes long."""
    whole = squash(small, tmp_path / "image", options).read_bytes()
    inodes = struct.unpack_from("<Q", whole, 64)[0]
    right = explore(tmp_path / "image")
    generator = random.Random(options)  # noqa: S311
    noticed = 0
    for _ in range(60):
        damaged = bytearray(whole)
        place = generator.choice((generator.randrange(96), generator.randrange(96, inodes), 0, 0))
        place = place or generator.randrange(inodes, len(whole))
        damaged[place] ^= 1 << generator.randrange(8)
        (tmp_path / "image").write_bytes(damaged)
        started = time.monotonic()
        found = explore(tmp_path / "image")
        assert time.monotonic() - started < 10
        noticed += any(isinstance(value, ImageError) for value in found.values())
        if "gzip" in options and 96 <= place < inodes:  # there zlib's checksum covers all
            for parts, value in found.items():
                assert isinstance(value, ImageError) or value == right[parts], parts
    assert noticed > 12


@pytest.mark.parametrize("options", ["-comp gzip", "-comp zstd -b 4096", "-noI -noD -noF"])
def test_cut_off(small: Path, tmp_path: Path, options: str) -> None:
    whole = squash(small, tmp_path / "image", options).read_bytes()
    used = struct.unpack_from("<Q", whole, 40)[0]
    for length in [*range(0, 100, 7), *range(100, used, used // 100)]:
        (tmp_path / "image").write_bytes(whole[:length])
        with pytest.raises(ImageError, match=f"it ends after {length} of"):
            opened(tmp_path / "image")
        if length > 96:  # a superblock that agrees
            (tmp_path / "image").write_bytes(whole[:40] + struct.pack("<Q", length) + whole[48:length])
            found = explore(tmp_path / "image")
            assert any(isinstance(value, ImageError) for value in found.values()) or length > used * 0.9


def test_cut_off_while_it_is_open(small: Path, tmp_path: Path) -> None:
    file = squash(small, tmp_path / "image")
    tree = opened(file)
    os.truncate(file, 2000)
    with pytest.raises(ImageError, match="it has become shorter"):
        tree.names(())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"sqsh", "there is no SquashFS in it"),
        (28, b"\3\0", "not of SquashFS version 4.0"),
        (12, b"\1\0", "its SquashFS block size is impossible"),
        (22, b"\x20\0", "its SquashFS block size is impossible"),
        (20, b"\7\0", "its SquashFS compression is unknown"),
        (20, b"\3\0", "it is compressed with lzo, which can't be read here"),
        (40, b"\xff" * 8, "it ends after"),
        (32, b"\xff" * 8, "it refers to what is outside of it"),
        (64, b"\xff" * 8, "it refers to what is outside of it"),
    ],
)
def test_superblocks(small: Path, tmp_path: Path, place: int, value: bytes, message: str) -> None:
    file = squash(small, tmp_path / "image")
    content = bytearray(file.read_bytes())
    content[place : place + len(value)] = value
    file.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        opened(file).names(())


class TestHostile:
    """Numbers in inodes and directories, in an image whose metadata is not compressed."""

    @pytest.fixture
    def plain(self, tmp_path: Path) -> tuple[Path, bytearray]:
        (tmp_path / "root/sub").mkdir(parents=True)
        (tmp_path / "root/file").write_bytes(b"x" * 12345)
        (tmp_path / "root/link").symlink_to("T" * 77)
        file = squash(tmp_path / "root", tmp_path / "image", "-noI -noD -noF -no-exports")
        return file, bytearray(file.read_bytes())

    def change(self, plain: tuple[Path, bytearray], kind: int, offset: int, value: bytes) -> Squashfs:
        """Write value into the last inode of that kind, offset bytes from its beginning."""
        file, content = plain
        start, end = struct.unpack_from("<QQ", content, 64)
        where = start + 2
        sizes = {1: 32, 2: 32, 3: 24 + 77}
        places = {}
        while where < end:
            found = struct.unpack_from("<H", content, where)[0]
            places[found] = where
            where += sizes[found]
        content[places[kind] + offset : places[kind] + offset + len(value)] = value
        file.write_bytes(content)
        return opened(file)

    def test_kind(self, plain: tuple[Path, bytearray]) -> None:
        with pytest.raises(ImageError, match="of no known kind"):
            self.change(plain, 3, 0, b"\x0f").mode(("link",))

    @pytest.mark.parametrize("size", [0, 4096, 0xFFFFFFFF])
    def test_link(self, plain: tuple[Path, bytearray], size: int) -> None:
        with pytest.raises(ImageError, match="a link in it is too long"):
            self.change(plain, 3, 20, struct.pack("<I", size)).target(("link",))

    def test_link_past_the_end(self, plain: tuple[Path, bytearray]) -> None:
        with pytest.raises(ImageError, match="its metadata ends too early"):
            self.change(plain, 3, 20, struct.pack("<I", 4000)).target(("link",))

    @pytest.mark.parametrize(
        ("offset", "value", "message"),
        [
            (16, b"\xff" * 4, "refers to what is outside"),
            (20, b"\0\0\0\0", "refers to what is outside"),  # fragment
            (28, b"\xff\xff\xff\x07", "refers to what is outside|too early|too long"),
            (28, b"\x3a\x30\0\0", "too short or too long"),
        ],
    )
    def test_file(self, plain: tuple[Path, bytearray], offset: int, value: bytes, message: str) -> None:
        if offset == 20:
            plain[1][16:20] = bytes(4)  # no fragments
        with pytest.raises(ImageError, match=message):
            self.change(plain, 2, offset, value).open(("file",)).read()

    def test_a_directory_in_itself(self, plain: tuple[Path, bytearray]) -> None:
        """Sub is given the listing of its own parent, and so on for ever."""
        file, content = plain
        start = struct.unpack_from("<Q", content, 64)[0] + 2
        root = start + (struct.unpack_from("<Q", content, 32)[0] & 0xFFFF)
        listing = bytes(content[root + 16 : root + 28])
        for where in range(start, root):
            if (
                struct.unpack_from("<H", content, where)[0] == 1
                and content[where + 24 : where + 26] == b"\3\0"
            ):
                content[where + 16 : where + 28] = listing
                break
        file.write_bytes(content)
        image = Rootfs(str(file))
        assert image.names("/sub/sub/sub") == ("file", "link", "sub")
        started = time.monotonic()
        assert image.locate("/sub" * 1000) == "/sub" * 1000
        assert image.locate("/sub" * 100_000) is None
        assert time.monotonic() - started < 5


def test_what_is_decompressed_has_a_limit() -> None:
    most = 1 << 17
    zeros = bytes(most * 8)
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    for number, content in (
        (1, zlib.compress(zeros)),
        (1, zlib.compress(b"content")[:-1]),
        (4, lzma.compress(zeros)),
        (4, b"\x5d" + struct.pack("<IQ", 1 << 30, 9) + bytes(99)),  # a dictionary of 1 GiB
        (2, lzma.compress(zeros, lzma.FORMAT_ALONE)),
        (5, b"\x1f\0\1\0" + b"\xff" * 1000),
        (6, zstandard.ZstdCompressor().compress(zeros)),
        (6, unsized.compress(zeros)),
        (6, b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + b"\1\0\0"),
        (6, b""),
    ):
        with pytest.raises(ImageError, match=r"can't use image: x\.sqfs: a block in it is damaged"):
            decompress.by_number(number, "x.sqfs")(content, most)
    for number, content in ((1, zlib.compress(zeros[:most])), (6, unsized.compress(zeros[:most]))):
        assert decompress.by_number(number, "x.sqfs")(content, most) == zeros[:most]


def test_a_compression_whose_package_is_missing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = squash(small, tmp_path / "image", "-comp lz4")
    assert open_image(str(file), "/no").unseen == ""
    monkeypatch.setitem(decompress.PACKAGES, "lz4", "chlaunch_no_such_package")
    why = "compressed with lz4, for which Python's package chlaunch_no_such_package is not installed"
    found = open_image(str(file), "/no")
    assert found == Rootfs(str(file), unseen=f"a SquashFS file {why}")
    assert (found.names("/"), found.sealed) == ((), "a SquashFS file")
    with pytest.raises(ImageError, match=why) as caught:
        opened(file)
    assert caught.value.hint == "pip install chlaunch_no_such_package"
