"""Compressed streams, told by their first bytes: gzip, zstd, xz, bzip2 or none; in bounded memory."""

import bz2
import io
import lzma
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

from chlaunch.errors import ImageError
from chlaunch.image import gzips

# RFC 1952, RFC 8878, the xz file format 1.1.0, and bzip2's.
MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
MAGIC_MOST = 6
# A zstd stream may begin with frames to be skipped, as pzstd writes them: 16 numbers, little-endian.
SKIPPABLE = tuple(bytes((number, 0x2A, 0x4D, 0x18)) for number in range(0x50, 0x60))

# Bytes read at a time, and the most that come out at a time.
SOURCE = 256 << 10
PIECE = 1 << 20

# A hostile header could ask for GiB. What `xz -9` and `zstd --ultra -22` write needs 65 and 128 MiB.
MEMORY_MOST = 160 << 20
WINDOW_LOG_MOST = 27

ZSTD_LEVEL = 3


class Machine(Protocol):
    """What Python's decompressors have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of what was compressed was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before something is put in."""

    @property
    def unused_data(self) -> bytes:
        """What was put in beyond the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Put something in, and return what comes out."""


class _Inflate:
    """zlib's, made to look like the others."""

    def __init__(self) -> None:
        zlib = gzips.library()
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: gzip's header and checksum

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._stream.decompress(self._stream.unconsumed_tail + data, max_length))


class _Pieces(io.RawIOBase):  # for io.BufferedReader, which asks for all that is in it
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  collections.abc.Buffer is of Python 3.12
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        room = memoryview(buffer)
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def open_decompressed(stream: BinaryIO, shown: str = "the archive") -> BinaryIO:
    """Return what stream holds, uncompressed, for reading from beginning to end; stream is not closed by it.

    shown: the stream's name, for messages. Reading raises ImageError for what `pieces` does.
    """
    return io.BufferedReader(_Pieces(pieces(stream, shown)), PIECE)


def pieces(stream: BinaryIO, shown: str) -> Iterator[bytes]:
    """Give what stream holds, uncompressed, in pieces of 1 MiB at most, none of them empty.

    Several compressed files one after another are one stream, as their programs have it.

    Raises:
        ImageError: the compression is damaged, ends too early, or asks for too much memory.
        OSError: from reading the stream.

    """
    head = b""
    while len(head) < MAGIC_MOST and (more := stream.read(SOURCE)):
        head += more
    kind = next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), "")
    if head.startswith(SKIPPABLE):
        kind = "zstd"
    if kind == "zstd" and sys.version_info < (3, 14):
        return _from_zstandard(stream, head, shown)
    machine = _MACHINES.get(kind)
    return (
        _plain(stream, head)
        if machine is None
        else _from_machines(machine, stream, head, _damaged(kind, shown))
    )


def compressor(name: str, stream: BinaryIO) -> BinaryIO:
    """Return what compresses to stream what is written to it, until it is closed; stream stays open.

    The same input gives the same output, whenever, in whatever pieces, with however many processors; gzip's
    depends on whether there is zlib-ng. name: gzip or zstd.

    Raises:
        ValueError: there is no such compression.

    """
    if name == "gzip":
        return cast("BinaryIO", gzips.GzipWriter(stream))
    if name != "zstd":
        raise ValueError(name)
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  of this Python only

        return cast("BinaryIO", zstd.ZstdFile(stream, "wb", level=ZSTD_LEVEL))
    import zstandard  # noqa: PLC0415  not of a newer Python

    return zstandard.ZstdCompressor(ZSTD_LEVEL, write_checksum=True).stream_writer(stream, closefd=False)


def _damaged(kind: str, shown: str) -> Callable[[object], ImageError]:
    def damaged(why: object) -> ImageError:
        return ImageError(f"can't read {shown}: its {kind} compression is damaged: {why}", "get it again")

    return damaged


def _plain(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = stream.read(PIECE)


def _from_machines(
    new: Callable[[], Machine], stream: BinaryIO, head: bytes, damaged: Callable[[object], ImageError]
) -> Iterator[bytes]:
    """Give what comes out of one decompressor after another."""
    machine = new()
    while True:
        try:
            found = machine.decompress(head, PIECE)
        except Exception as error:  # each library has its own
            raise damaged(error) from error
        if found:
            yield found
        head = b""
        if machine.eof:
            # Files are padded with zeros, on tapes and in blocks of xz.
            head = machine.unused_data.lstrip(b"\0")
            while not head:
                head = stream.read(SOURCE)
                if not head:
                    return
                head = head.lstrip(b"\0")
            machine = new()
        elif machine.needs_input:
            head = stream.read(SOURCE)
            if not head:
                raise damaged("it ends too early")


def _from_zstandard(stream: BinaryIO, head: bytes, shown: str) -> Iterator[bytes]:
    """Give what comes out of the package's decompressor.

    It does not tell a stream that ends too early from one that ends. So a frame of ours follows: what still
    waits for its end takes the frame for its own, and what comes out last is not our text. (With a checksum,
    or text that is passed on as it is would look the same.)
    """
    import zstandard  # noqa: PLC0415  not of a newer Python; and it takes its time

    mark = b"the end of it all"
    last = zstandard.ZstdCompressor(write_checksum=True).compress(mark)
    machine = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MOST)
    damaged = _damaged("zstd", shown)
    source = cast("BinaryIO", _Source(stream, head, last))
    with machine.stream_reader(source, SOURCE, read_across_frames=True, closefd=False) as reader:
        held = b""
        while True:
            try:
                found = reader.read(PIECE)
            except zstandard.ZstdError as error:
                raise damaged(error) from error
            if not found:
                break
            held += found
            if len(held) > len(mark):
                yield held[: -len(mark)]
                held = held[-len(mark) :]
    if held != mark:
        raise damaged("it ends too early")


class _Source:
    """A stream between what was read of it already and what is to follow."""

    def __init__(self, stream: BinaryIO, head: bytes, last: bytes) -> None:
        self._stream = stream
        self._head = head
        self._last = last

    def read(self, size: int) -> bytes:
        found, self._head = self._head, b""
        found = found or self._stream.read(size)
        if not found:
            found, self._last = self._last, b""
        return found


def _xz() -> Machine:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_MOST)


def _zstd() -> Machine:
    """Return Python's own; where it has none, the package does it, by _from_zstandard()."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  of this Python only

        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MOST})
    raise RuntimeError("this Python has no zstd")


_MACHINES: dict[str, Callable[[], Machine]] = {
    "gzip": _Inflate,
    "xz": _xz,
    "bzip2": bz2.BZ2Decompressor,
    "zstd": _zstd,
}
