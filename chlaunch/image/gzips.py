"""gzip files, made in blocks that several threads compress at once, as pigz does.

Each block's dictionary is the end of the one before, so that little is lost, and the same bytes come out
however many threads there are (RFC 1952; zlib's manual, deflateSetDictionary and Z_SYNC_FLUSH). zlib-ng has
threads of its own: these wait for each other forever when a signal ends whoever writes.
"""

import io
import os
import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, BinaryIO

# Bytes that are compressed at a time, and what the next block may refer to of them.
BLOCK = 1 << 20
WINDOW = 32 << 10

# As skopeo and buildah have it; more costs time and gains a percent.
LEVEL = 6

THREADS_MOST = 4

# RFC 1952: deflate, no name, no time, no system.
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
# RFC 1951: a last block with nothing in it.
LAST = b"\x03\0"


def library() -> Any:  # noqa: ANN401  two modules that are alike
    """Return zlib-ng, which takes half the time; zlib on machines for which there is no wheel of that."""
    try:
        from zlib_ng import zlib_ng  # noqa: PLC0415  see above
    except ImportError:
        import zlib  # noqa: PLC0415  likewise

        return zlib
    return zlib_ng


class GzipWriter(io.RawIOBase):
    """What is written comes out compressed; stream stays open. If a ``with`` fails, nothing is finished."""

    def __init__(self, stream: BinaryIO) -> None:
        """Begin."""
        self._stream = stream
        self._zlib = library()
        self._threads = min(len(os.sched_getaffinity(0)), THREADS_MOST)
        self._pool = ThreadPoolExecutor(self._threads)
        self._ahead: deque[Future[bytes]] = deque()
        self._block = bytearray()
        self._dictionary = b""
        self._crc = self._size = 0
        stream.write(HEADER)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish, or leave it."""
        if kind is None:
            self.close()
        else:
            self._pool.shutdown(cancel_futures=True)
            super().close()

    def __del__(self) -> None:
        """Finish nothing, as the base class would: who did not close it has failed."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401  collections.abc.Buffer is of Python 3.12
        """Take some bytes; return how many, which is all."""
        rest = memoryview(data)
        size = len(rest)
        while rest:
            part = rest[: BLOCK - len(self._block)]
            self._block += part
            rest = rest[len(part) :]
            if len(self._block) == BLOCK:
                self._begin()
        return size

    def close(self) -> None:
        """Write what is left, once."""
        if self.closed:
            return
        try:
            if self._block:
                self._begin()
            self._write(0)
            self._stream.write(LAST + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        finally:
            self._pool.shutdown(cancel_futures=True)
            super().close()

    def _begin(self) -> None:
        """Have a block compressed, and write what is done of those before."""
        block = bytes(self._block)
        self._block.clear()
        self._crc = self._zlib.crc32(block, self._crc)
        self._size += len(block)
        self._ahead.append(self._pool.submit(_deflated, self._zlib, block, self._dictionary))
        self._dictionary = block[-WINDOW:]
        self._write(2 * self._threads)

    def _write(self, most: int) -> None:
        """Write blocks, in order, until no more than so many are not written."""
        while len(self._ahead) > most:
            self._stream.write(self._ahead.popleft().result())


def _deflated(zlib: Any, block: bytes, dictionary: bytes) -> bytes:  # noqa: ANN401  see library()
    """Return a block compressed, up to a whole byte."""
    stream = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS, zdict=dictionary)
    return bytes(stream.compress(block) + stream.flush(zlib.Z_SYNC_FLUSH))
