"""Files from the web: checked where a checksum is known, and continued where a connection broke.

Rules: RFC 9110, sections 13.1.5 (If-Range), 14 (ranges), 15 (status codes).
"""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

from chlaunch.errors import ImageError, RegistryError, StorageError, UsageError
from chlaunch.image.events import Events
from chlaunch.image.manifest import Progress
from chlaunch.image.origin import origin_of
from chlaunch.image.retry import PASSING, Attempts, Patience, TransientError
from chlaunch.image.transport import Answer, Request, Transport

SCHEMES = ("http://", "https://")

CHUNK = 256 << 10
OK, PARTIAL = 200, 206
WORTHWHILE = 1 << 20  # bytes, after which a broken connection counts as the first again
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")

# What statuses mean to who asks for a file; others are shown by number.
MEANINGS = {
    401: "it wants to know who you are",
    403: "access denied",
    404: "not found",
    407: "the proxy wants to know who you are",
    410: "it is gone",
}


@dataclass(frozen=True)
class Fetching:
    """How. environment: for proxies and certificates. verify: believe only known authorities."""

    environment: Mapping[str, str]
    events: Events
    verify: bool = True
    patience: Patience = field(default_factory=Patience)


def is_url(word: str) -> bool:
    """Say whether a word is the URL of something that can be fetched."""
    return word.lower().startswith(SCHEMES)


def file_name(url: str) -> str:
    """Return what a file from a URL is called: the last part of its path; "file" if it has none."""
    name = PurePosixPath(unquote(urlsplit(url).path).replace("\0", "")).name
    return name if name not in ("", "..") else "file"


def fetch_url(url: str, path: Path, fetching: Fetching, *, checksum: str = "") -> str:
    """Bring what a URL names into a new file; return its digest, "sha256:…".

    checksum: that it must have, "sha256:…" or "sha512:…", hexadecimal; empty for any. After a failure there
    is no file.

    Raises:
        UsageError: the URL or the checksum makes no sense.
        RegistryError: the server refuses, breaks off again and again, or can't be believed.
        ImageError: it is not what the checksum says.
        StorageError: the file can't be written.

    """
    if checksum and not CHECKSUM.fullmatch(checksum):
        raise UsageError(f"no checksum: {checksum}", "sha256: or sha512:, and its hexadecimal digits")
    shown = _shown(url)
    if url.lower().startswith("http:") and not checksum and not origin_of(url, shown).is_loopback:
        fetching.events.warn(f"{shown}: plain http: anybody on the way can change what is sent")
    transport = Transport(fetching.environment, fetching.patience.silence, verify=fetching.verify)
    try:
        with path.open("xb+") as file:
            _Download(url, shown, transport, fetching).run(file)
            return _checked(file, shown, checksum)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"{path}: can't write: {error.strerror}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        transport.close()


class _Download:
    """One file on its way. mark: by which the server knows this very content again; empty if it gave none."""

    def __init__(self, url: str, shown: str, transport: Transport, fetching: Fetching) -> None:
        self._url = url
        self._shown = shown
        self._transport = transport
        self._fetching = fetching
        self._mark = ""

    def run(self, file: IO[bytes]) -> None:
        """Write it to a file, in as many tries as are due."""
        attempts = Attempts(self._fetching.patience, self._fetching.events.warn)
        answer = None
        while answer is None:  # the size is known once there is an answer
            try:
                answer = self._ask(0)
            except TransientError as error:
                attempts.again(error)
        with self._fetching.events.track(file_name(self._url), answer.length or 0) as progress:
            while True:
                before = file.tell()
                try:
                    if answer is None:
                        answer = self._ask(before)
                        self._go_on(answer, file, progress)
                    with answer:
                        self._receive(answer, file, progress)
                except TransientError as error:
                    answer = None
                    if file.tell() - before >= WORTHWHILE:
                        attempts.progressed()
                    attempts.again(error)
                else:
                    return

    def _ask(self, start: int) -> Answer:
        """Ask for what is missing, if the content is still the same; else the server sends all."""
        headers = {"Range": f"bytes={start}-", "If-Range": self._mark} if start and self._mark else {}
        answer = self._transport.send(Request("GET", self._url, headers))
        if answer.status not in (OK, PARTIAL) or (answer.status == PARTIAL and not headers):
            answer.close()
            raise self._refused(answer)
        tag = answer.headers.get("ETag", "")
        self._mark = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        return answer

    def _go_on(self, answer: Answer, file: IO[bytes], progress: Progress) -> None:
        """Place the file where what comes belongs: after what is there, or at its beginning."""
        if answer.status == PARTIAL:
            found = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != file.tell():
                answer.close()
                raise RegistryError(f"{self._shown}: another part came than was asked for", "try again")
            return
        progress(-file.tell())
        file.seek(0)
        file.truncate()

    def _receive(self, answer: Answer, file: IO[bytes], progress: Progress) -> None:
        """Write what comes."""
        while data := answer.read(CHUNK):
            file.write(data)
            progress(len(data))
        file.flush()

    def _refused(self, answer: Answer) -> RegistryError:
        """Return the failure for an answer that has no file in it."""
        meaning = MEANINGS.get(answer.status, f"unexpected answer, HTTP {answer.status}")
        if answer.status in PASSING:
            return TransientError(
                f"{self._shown}: the server has trouble, HTTP {answer.status}", "", answer.retry_after()
            )
        return RegistryError(
            f"{self._shown}: {meaning}", "is the URL right? Others have to be fetched by hand"
        )


def _checked(file: IO[bytes], shown: str, checksum: str) -> str:
    """Return the digest of a file, after its checksum was compared."""
    found = ""
    for name in dict.fromkeys((checksum.partition(":")[0] or "sha256", "sha256")):
        file.seek(0, io.SEEK_SET)
        found = f"{name}:{hashlib.file_digest(file, name).hexdigest()}"  # type: ignore[arg-type]
        if checksum.startswith(f"{name}:") and found != checksum:
            raise ImageError(
                f"{shown}: has another checksum: {found}",
                "it is damaged, or not what was meant",
            )
    return found


def _shown(url: str) -> str:
    """Return a URL as it can be shown: without its query, which may be a secret.

    Raises:
        UsageError: it is none that can be fetched, or has a password in it.

    """
    try:
        origin = origin_of(url, "this URL")
    except RegistryError as error:
        raise UsageError(
            "not the URL of a file on a server, or one with a user in it", "https://HOST/PATH"
        ) from error
    path = urlsplit(url).path
    return f"{origin}{path}" if path.isprintable() else str(origin)
