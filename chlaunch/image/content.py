"""An archive's bytes as they come: hashed, counted and bounded; what tarfile reads headers from."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from chlaunch.errors import ImageError

BLOCK = 512

# Pieces that are uncompressed ahead, 1 MiB each.
AHEAD = 4


class Content:
    """The bytes of a tar. Uncompressing and hashing go on in a thread of its own, both without Python's lock.

    The caller says where a member's header begins (`between`), for what is read of headers has a limit:
    tarfile reads as much at once as a header says that follows. All methods raise ImageError.
    """

    def __init__(self, pieces: Iterator[bytes], shown: str, size_most: int, headers_most: int) -> None:
        """Begin. shown: the archive's name, for messages. size_most, headers_most: bytes."""
        self._pieces = pieces
        self._shown = shown
        self._size_most = size_most
        self._headers_most = headers_most
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._ahead: deque[Future[bytes]] = deque(self._pool.submit(self._next) for _ in range(AHEAD))
        self._piece = memoryview(b"")
        self._at = 0  # in the piece
        self._before = 0  # bytes in pieces before
        self._apparent = 0  # bytes that are holes
        self._header_end = 0
        self._block = b""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being read now; nothing reads from the stream afterwards."""
        self._pool.shutdown(cancel_futures=True)

    def between(self) -> None:
        """Say that a header begins here."""
        self._header_end = self.tell() + self._headers_most

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """Return a part of a header; nothing at the end, if it is one block that was asked for."""
        if size < 0 or self.tell() + size > self._header_end:
            raise self.too_much(f"{self._headers_most} bytes in a header")
        end = self._at + size
        if end <= len(self._piece):
            found = bytes(self._piece[self._at : end])
            self._at = end
        else:
            found = b"".join(self._up_to(size))
            if len(found) < size and (found or size != BLOCK):
                raise self.damaged("it ends within a header")
        if size == BLOCK:
            self._block = found
        return found

    def take(self, size: int) -> Iterator[memoryview]:
        """Give the next bytes, in pieces."""
        left = size
        for part in self._up_to(size):
            left -= len(part)
            yield part
        if left:
            raise self.damaged("it ends within a file")

    def skip_to(self, position: int) -> None:
        """Pass over what comes before position."""
        if position < self.tell():
            raise self.damaged("a size in it makes no sense")
        if position > self.tell():
            for _ in self.take(position - self.tell()):
                pass

    def count_hole(self, size: int) -> None:
        """Count bytes of a file that are not in the archive."""
        self._apparent += size
        self._check_size()

    def finish(self) -> tuple[str, int]:
        """Read to the end, and return the digest of all, "sha256:…", and how many bytes it were.

        To be called when no header was found any more.
        """
        if self._block.strip(b"\0"):
            raise self.damaged("a header in it makes no sense")
        while self._advance():
            pass
        return f"sha256:{self._digest.hexdigest()}", self.tell()

    def damaged(self, why: object) -> ImageError:
        """Return the error for what is not as it should be."""
        return ImageError(f"can't unpack {self._shown}: {why}", "it is damaged, or no tar archive")

    def too_much(self, most: str, option: str = "") -> ImageError:
        """Return the error for what is beyond a limit. option: which raises it; empty if none does."""
        hint = f"if you trust it: {option}" if option else "no image needs as much: it is damaged, or hostile"
        return ImageError(f"can't unpack {self._shown}: it has more than {most}", hint)

    def _up_to(self, size: int) -> Iterator[memoryview]:
        """Give the next bytes, fewer at the end of all."""
        while size:
            if self._at == len(self._piece) and not self._advance():
                return
            part = self._piece[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part

    def _advance(self) -> bool:
        """Go to the next piece; say whether there is one."""
        if not self._ahead:
            return False
        self._before += len(self._piece)
        self._at = 0
        self._piece = memoryview(self._waited())
        if self._piece:
            self._ahead.append(self._pool.submit(self._next))
        else:
            self._ahead.clear()
        self._check_size()
        return bool(self._piece)

    def _waited(self) -> bytes:
        try:
            return self._ahead.popleft().result()
        except OSError as error:
            raise ImageError(f"can't read {self._shown}: {error}") from error

    def _next(self) -> bytes:
        """Return the next piece, hashed; nothing at the end. In the thread."""
        piece = next(self._pieces, b"")
        self._digest.update(piece)
        return piece

    def _check_size(self) -> None:
        if self._before + len(self._piece) + self._apparent > self._size_most:
            raise self.too_much(f"{self._size_most} bytes, uncompressed", "--max-size=GIB")
