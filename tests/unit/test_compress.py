"""Compressed streams: what the programs write, what we write, and what is damaged or lies."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest

from chlaunch.errors import ImageError
from chlaunch.image import gzips
from chlaunch.image.compress import MAGICS, PIECE, compressor, open_decompressed, pieces

if TYPE_CHECKING:
    from pathlib import Path

# Some MiB that compress to a quarter, and end within a piece.
TEXT = bytes(random.Random(1).choices(b"abcd", k=3 * PIECE + 12345))  # noqa: S311  the same each time

# Several streams in one, as programs that use all cores write them; xz's padding; a frame to be skipped.
PROGRAMS = {
    "gzip": "gzip -1",
    "gzip with a name": "gzip -1 --name",
    "two gzip": "tee >(gzip -1 >a) | tail -c +1000001 | gzip >b; cat <(head -c 1000000 text | gzip) b",
    "gzip and zeros": "gzip -1; head -c 1000 /dev/zero",
    "xz": "xz -0 -T2 --block-size=1000000",
    "two xz": "head -c 1000000 text | xz -0; head -c 4096 /dev/zero; tail -c +1000001 text | xz -0",
    "bzip2": "bzip2 -1",
    "two bzip2": "head -c 1000000 text | bzip2 -1; tail -c +1000001 text | bzip2 -1",
    "zstd": "zstd -1 -T2",
    "zstd with a large window": "zstd -1 --long=27",
    "two zstd": "head -c 1000000 text | zstd -1; tail -c +1000001 text | zstd -1",
    "zstd to be skipped": r"printf '\x50\x2a\x4d\x18\x03\0\0\0abc'; zstd -1 --no-check",
    "none": "cat",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_what_programs_write_is_read(program: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    done = subprocess.run(["bash", "-c", program], input=TEXT, capture_output=True, check=True, cwd=tmp_path)
    with open_decompressed(io.BytesIO(done.stdout)) as stream:
        assert stream.read(10) == TEXT[:10]
        assert stream.read() == TEXT[10:]
    assert all(0 < len(piece) <= PIECE for piece in pieces(io.BytesIO(done.stdout), "it"))


def test_nothing_is_nothing() -> None:
    assert open_decompressed(io.BytesIO()).read() == b""


class Trickle:
    """A stream that gives as little at a time as a network may."""

    def __init__(self, content: bytes) -> None:
        """Begin."""
        self.rest = content

    def read(self, size: int) -> bytes:
        assert size > 0
        found, self.rest = self.rest[:3], self.rest[3:]
        return found


def compressed(name: str, content: bytes, size: int = 1 << 30) -> bytes:
    """Return it compressed; by us, where we can, and written in parts of that size."""
    if name == "xz":
        return lzma.compress(content)
    if name == "bzip2":
        return bz2.compress(content)
    target = io.BytesIO()
    with compressor(name, target) as stream:
        for start in range(0, len(content), size):
            stream.write(content[start : start + size])
    return target.getvalue()


@pytest.mark.parametrize("name", MAGICS.values())
def test_a_stream_may_come_in_small_parts(name: str) -> None:
    stream = cast("BinaryIO", Trickle(compressed(name, TEXT[:100_000])))
    found = b"".join(pieces(stream, "it"))
    assert found == TEXT[:100_000]


@pytest.mark.parametrize("name", MAGICS.values())
def test_what_ends_too_early_is_damaged(name: str) -> None:
    whole = compressed(name, TEXT[:300_000])
    for size in (8, 20, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        with pytest.raises(ImageError, match=f"can't read it: its {name} compression is damaged: "):
            list(pieces(io.BytesIO(whole[:size]), "it"))


def test_zstd_that_ends_too_early_is_damaged_wherever_it_ends() -> None:
    import zstandard  # noqa: PLC0415  where it is needed

    # What can't be compressed is passed on as it is, so that the next frame might be taken for more of it.
    noise = random.Random(2).randbytes(200_000)  # noqa: S311  likewise
    for content in (noise, bytes(200_000), b"x"):
        for check in (True, False):
            whole = zstandard.ZstdCompressor(write_checksum=check, write_content_size=False).compress(content)
            assert b"".join(pieces(io.BytesIO(whole), "it")) == content
            sizes = range(6, len(whole)) if len(whole) < 1000 else range(6, len(whole), 977)
            for size in sizes:
                with pytest.raises(ImageError, match="zstd compression is damaged"):
                    list(pieces(io.BytesIO(whole[:size]), "it"))


@pytest.mark.parametrize("name", MAGICS.values())
def test_a_wrong_byte_is_noticed(name: str) -> None:
    whole = bytearray(compressed(name, TEXT[:300_000]))
    whole[len(whole) // 2] ^= 0x55
    with pytest.raises(ImageError, match=f"its {name} compression is damaged"):
        list(pieces(io.BytesIO(whole), "it"))


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
def test_what_follows_must_be_compressed_too(name: str) -> None:
    with pytest.raises(ImageError, match="is damaged"):
        list(pieces(io.BytesIO(compressed(name, b"abc") + b"more"), "it"))


def test_memory_has_a_limit() -> None:
    huge = lzma.compress(b"abc", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}])
    with pytest.raises(ImageError, match="xz compression is damaged: Memory usage limit"):
        list(pieces(io.BytesIO(huge), "it"))
    done = subprocess.run(["zstd", "--ultra", "--long=30", "-"], input=TEXT, capture_output=True, check=True)
    with pytest.raises(ImageError, match=r"zstd compression is damaged: .*too much memory"):
        list(pieces(io.BytesIO(done.stdout), "it"))


@pytest.mark.parametrize("name", MAGICS.values())
def test_bombs_come_out_in_pieces(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMB, name], capture_output=True, text=True, check=True, input=""
    )
    assert int(done.stdout) < 150 << 10, "KiB"


# 512 MiB of zeros, compressed before in pieces that repeat.
BOMB = """
import bz2, gzip, io, lzma, sys
from chlaunch.image.compress import compressor, pieces
name = sys.argv[1]
zeros = bytes(64 << 20)
if name == "zstd":
    target = io.BytesIO()
    with compressor(name, target) as stream:
        stream.write(zeros)
    part = target.getvalue()
else:
    part = {"gzip": gzip, "xz": lzma, "bzip2": bz2}[name].compress(zeros)
del zeros
size = sum(len(piece) for piece in pieces(io.BytesIO(part * 8), "it"))
assert size == 512 << 20, size
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.parametrize(("name", "program"), [("gzip", "gunzip"), ("zstd", "unzstd")])
def test_what_we_write_programs_read_and_is_always_the_same(name: str, program: str) -> None:
    whole = compressed(name, TEXT)
    assert subprocess.run([program], input=whole, capture_output=True, check=True).stdout == TEXT
    assert compressed(name, TEXT) == whole
    assert compressed(name, TEXT, 70_001) == whole
    assert len(whole) < len(TEXT) // 2
    if name == "gzip":  # RFC 1952: no name, no time
        assert whole[3:8] == b"\0\0\0\0\0"


def test_gzip_without_zlib_ng() -> None:
    """There are machines without a wheel of it."""
    script = """if True:
        import sys
        sys.modules["zlib_ng"] = None
        from chlaunch.image import compress
        with compress.compressor("gzip", sys.stdout.buffer) as stream:
            for piece in compress.pieces(sys.stdin.buffer, "it"):
                stream.write(piece)
    """
    whole = compressed("gzip", TEXT)
    done = subprocess.run([sys.executable, "-c", script], input=whole, capture_output=True, check=True)
    assert b"".join(pieces(io.BytesIO(done.stdout), "it")) == TEXT
    assert done.stdout[3:8] == b"\0\0\0\0\0"


def test_gzip_of_what_is_given_up() -> None:
    """Nothing is finished, and nobody is waited for; a file that was cut off is not taken for a whole one."""
    target = io.BytesIO()
    with suppress(KeyboardInterrupt), compressor("gzip", target) as stream:
        stream.write(TEXT * 4)
        raise KeyboardInterrupt
    size = len(target.getvalue())
    compressor("gzip", target).write(TEXT)
    with pytest.raises(ImageError, match="ends too early"):
        list(pieces(io.BytesIO(target.getvalue()[:size]), "it"))


@pytest.mark.parametrize("size", [0, 1, gzips.BLOCK - 1, gzips.BLOCK, gzips.BLOCK + 1, 2 * gzips.BLOCK])
def test_gzip_of_whole_blocks(size: int) -> None:
    content = TEXT[:size]
    whole = compressed("gzip", content)
    assert gzip.decompress(whole) == content
    assert b"".join(pieces(io.BytesIO(whole), "it")) == content


def test_there_is_no_other_compressor() -> None:
    with pytest.raises(ValueError, match="lzma"):
        compressor("lzma", io.BytesIO())


def test_the_stream_written_to_stays_open() -> None:
    for name in ("gzip", "zstd"):
        target = io.BytesIO()
        compressor(name, target).close()
        assert b"".join(pieces(target, "it")) == b""
        target.seek(0)
        assert target.read()
