"""A blob as a registry gives it: goes on where a connection broke, never beyond the size it should have."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from chlaunch.errors import RegistryError, StorageError
from chlaunch.image.auth import Scopes
from chlaunch.image.endpoint import Endpoint
from chlaunch.image.manifest import Descriptor, Progress
from chlaunch.image.retry import TransientError
from chlaunch.image.transport import Answer, Request

CHUNK = 256 << 10
WORTHWHILE = 1 << 20  # bytes, after which a broken connection counts as the first again
OK, PARTIAL = 200, 206


class BlobReader:
    """The bytes of a blob from a position on; a context manager. One thread reads.

    Whoever reads checks the digest. As many bytes come as the descriptor says, or read() raises.
    """

    def __init__(self, endpoint: Endpoint, scopes: Scopes, descriptor: Descriptor, start: int = 0) -> None:
        """Name the blob; nothing is asked yet."""
        self._endpoint = endpoint
        self._scopes = scopes
        self._descriptor = descriptor
        self._position = start
        self._answer: Answer | None = None
        self._attempts = endpoint.attempts()
        self._earned = start
        self._shown = f"{endpoint.shown}@{descriptor.digest}"

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection."""
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def read(self, size: int = -1) -> bytes:
        """Return at most size bytes, all if size is negative; none at the end.

        Raises:
            RegistryError: the registry refuses, breaks off again and again, or has more or less.

        """
        if size < 0:
            parts = iter(lambda: self.read(CHUNK), b"")
            return b"".join(parts)
        while size > 0:
            try:
                return self._read(min(size, CHUNK))
            except TransientError as error:
                self.close()
                self._attempts.again(
                    TransientError(f"{self._shown}: {error.message}", error.hint, error.after)
                )
        return b""

    def _read(self, size: int) -> bytes:
        """Return some bytes, at the end none."""
        left = self._descriptor.size - self._position
        if self._answer is None:
            if left == 0:
                return b""
            self._answer = self._open()
        data = self._answer.read(size)
        if len(data) > left:
            raise self._lie("sends more")
        if not data and left > 0:
            raise TransientError(
                "the connection broke off" if self._answer.length is None else "it ended early"
            )
        self._position += len(data)
        if self._position - self._earned >= WORTHWHILE:
            self._earned = self._position
            self._attempts.progressed()
        return data

    def _open(self) -> Answer:
        """Ask for the rest."""
        size, start = self._descriptor.size, self._position
        headers = {"Range": f"bytes={start}-{size - 1}"} if start else {}
        path = f"/v2/{self._endpoint.repository}/blobs/{self._descriptor.digest}"
        request = Request("GET", path, headers)
        answer = self._endpoint.call(request, self._scopes, expect=(OK, PARTIAL), insist=False)
        try:
            self._check(answer, start)
        except RegistryError:
            answer.close()
            raise
        return answer

    def _check(self, answer: Answer, start: int) -> None:
        """Check that an answer has what was asked for, and skip what was not."""
        size = self._descriptor.size
        begins = start
        if answer.status == OK:
            begins = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise self._lie("gives another part")
        if answer.length is not None and answer.length != size - begins:
            raise self._lie("says that there are more" if answer.length > size - begins else "has less")
        skip = start - begins
        while skip > 0:
            data = answer.read(min(skip, CHUNK))
            if not data:
                raise TransientError("it ended early")
            skip -= len(data)

    def _lie(self, what: str) -> RegistryError:
        return RegistryError(
            f"{self._shown}: the registry {what} than the {self._descriptor.size} bytes of the manifest",
            "do not trust this image; tell who runs this registry",
        )


def fetch(
    open_at: Callable[[int], BlobReader], descriptor: Descriptor, path: Path, progress: Progress
) -> None:
    """Bring a blob into a file, which may hold a beginning of it already. At its end it is what it should be.

    Progress counts what is there already, too; and back if it was wrong, which happens once at most.

    Raises:
        RegistryError: the registry refuses, breaks off, or has something else than the manifest names.
        StorageError: the file can't be written.

    """
    try:
        descriptor_number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor_number, "r+b") as file:
            for last in (False, True):
                if _fill(open_at, descriptor, file, progress):
                    return
                progress(-descriptor.size)
                file.seek(0)
                file.truncate()
                if last:
                    raise RegistryError(
                        f"{descriptor.digest}: what the registry sends has another digest",
                        "do not trust this image; tell who runs this registry",
                    )
    except OSError as error:
        raise StorageError(f"{path}: can't write: {error.strerror}") from error


def _fill(
    open_at: Callable[[int], BlobReader], descriptor: Descriptor, file: IO[bytes], progress: Progress
) -> bool:
    """Bring what is missing; say whether the whole is right."""
    if os.fstat(file.fileno()).st_size > descriptor.size:
        file.truncate(0)
    digest = hashlib.sha256()
    file.seek(0)
    while data := file.read(CHUNK):
        digest.update(data)
        progress(len(data))
    with open_at(file.seek(0, io.SEEK_END)) as stream:
        while data := stream.read(CHUNK):
            file.write(data)
            digest.update(data)
            progress(len(data))
    file.flush()
    return f"sha256:{digest.hexdigest()}" == descriptor.digest
