"""A blob to a registry: in one stream, going on where the connection broke, if the registry can.

As the OCI Distribution Specification has it ("Pushing a blob in chunks"), with a single chunk: that is what
most clients send, so registries take it. Where one does not, the blob goes into the last request.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from chlaunch.errors import RegistryError, StorageError
from chlaunch.image.auth import Scopes
from chlaunch.image.endpoint import Endpoint
from chlaunch.image.manifest import Descriptor, Progress
from chlaunch.image.retry import TransientError
from chlaunch.image.transport import Answer, Request

CHUNK = 256 << 10
CREATED, ACCEPTED, NO_CONTENT, NO_METHOD, NOT_IMPLEMENTED = 201, 202, 204, 405, 501
RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
BYTES = {"Content-Type": "application/octet-stream"}
COMMIT_SECONDS = 600.0  # a registry may copy and read again all of a large blob before it says that it has it


class _Piece:
    """A file from a position on, as requests takes it."""

    def __init__(self, file: IO[bytes], start: int, size: int, progress: Progress) -> None:
        self._file = file
        self._length = self._left = size - start
        self._progress = progress
        file.seek(start)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(CHUNK):
            yield data

    def read(self, size: int = CHUNK) -> bytes:
        data = self._file.read(min(size, self._left))
        if self._left and not data:
            raise StorageError(f"{self._file.name}: became shorter while it was read")
        self._left -= len(data)
        self._progress(len(data))
        return data


class Upload:
    """One blob on its way to a registry."""

    def __init__(
        self, endpoint: Endpoint, scopes: Scopes, descriptor: Descriptor, progress: Progress
    ) -> None:
        """Name the blob; nothing is sent yet."""
        self._endpoint = endpoint
        self._scopes = scopes
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._progress = progress
        self._counted = 0
        self._url = ""  # where to go on
        self._can_resume = True
        self._can_patch = True

    def run(self, path: Path) -> None:
        """Send a file.

        Raises:
            RegistryError: the registry refuses, or breaks off again and again.
            StorageError: the file can't be read, or has another size.

        """
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) != self._size:
                    raise StorageError(f"{path}: not the {self._size} bytes that it had")
                self._insist(file)
        except OSError as error:
            raise StorageError(f"{path}: can't read: {error.strerror}") from error

    def _insist(self, file: IO[bytes]) -> None:
        """Send, again if it breaks, and not from the start if that can be."""
        attempts = self._endpoint.attempts()
        while True:
            resumed = bool(self._url)
            try:
                if resumed and is_there(self._endpoint, self._scopes, self._digest):
                    self._count_from(self._size)
                    return
                self._send(file, self._where() if resumed else self._begin())
            except TransientError as error:
                attempts.again(error)
            except RegistryError:
                if not resumed:
                    raise
                self._can_resume = False  # it can't tell, or lost what it had: from the start then
                self._url = ""
            else:
                return

    def _begin(self) -> int:
        """Begin an upload."""
        path = f"/v2/{self._endpoint.repository}/blobs/uploads/"
        with self._call(Request("POST", path), ACCEPTED) as answer:
            self._take_url(answer)
        return 0

    def _where(self) -> int:
        """Return how much the registry has. It says 0-0 for nothing, and some also for one byte."""
        if not self._can_resume:
            self._url = ""
            return self._begin()
        with self._call(Request("GET", self._url), NO_CONTENT) as answer:
            found = RANGE.fullmatch(answer.headers.get("Range", ""))
            self._take_url(answer)
        last = int(found[1]) if found else 0
        if last >= self._size:
            raise RegistryError(f"{self._endpoint.shown}: has more of a blob than was sent")
        return last + 1 if last else 0

    def _send(self, file: IO[bytes], start: int) -> None:
        """Send from start on, and complete."""

        def rest() -> _Piece:
            self._count_from(start)
            return _Piece(file, start, self._size, self._count)

        self._count_from(start)
        if self._can_patch and start < self._size:
            span = {"Content-Range": f"{start}-{self._size - 1}"} if start else {}
            request = Request("PATCH", self._url, {**BYTES, **span}, rest)
            with self._call(request, ACCEPTED, CREATED, NO_CONTENT, NO_METHOD, NOT_IMPLEMENTED) as answer:
                self._can_patch = answer.status not in (NO_METHOD, NOT_IMPLEMENTED)
                if self._can_patch:
                    self._take_url(answer)
                    start = self._size
            if not self._can_patch:
                start = self._begin()
        url = f"{self._url}{'&' if '?' in self._url else '?'}digest={quote(self._digest, safe='')}"
        body = rest if start < self._size else b""
        self._call(Request("PUT", url, BYTES, body, COMMIT_SECONDS), CREATED, NO_CONTENT).close()

    def _call(self, request: Request, *expect: int) -> Answer:
        return self._endpoint.call(request, self._scopes, expect=expect, insist=False)

    def _take_url(self, answer: Answer) -> None:
        """Remember where to go on, which each answer says anew."""
        location = answer.headers.get("Location", "")
        if location:
            self._url = self._endpoint.given(answer, location)
        if not self._url:
            raise RegistryError(f"{self._endpoint.shown}: does not say where to upload to")

    def _count(self, number: int) -> None:
        self._counted += number
        self._progress(number)

    def _count_from(self, start: int) -> None:
        """Put progress right: the registry has what is before start, and nothing else."""
        self._count(start - self._counted)


def is_there(endpoint: Endpoint, scopes: Scopes, digest: str, size: int | None = None) -> bool:
    """Say whether a registry has a blob, of the size if that is given."""
    path = f"/v2/{endpoint.repository}/blobs/{digest}"
    with endpoint.call(Request("HEAD", path), scopes, expect=(200, 404)) as answer:
        said = answer.headers.get("Content-Length", "")
        return answer.status == 200 and (size is None or not said or said == str(size))  # noqa: PLR2004  OK
