"""Files by their URLs. The server is a registry's, which knows ranges and marks, also behind a proxy that breaks it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from faults import FaultProxy, Rule
from made import Silent
from pictures import picture

from chlaunch.errors import ChlaunchError, ImageError, RegistryError, UsageError
from chlaunch.image.retry import Patience
from chlaunch.image.urls import Fetching, fetch_url, file_name, is_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registries import RegistryServer

    from chlaunch.image.registry import Registry

SIZE = 3 << 20
PATIENCE = Patience(tries=4, first=0.01, most=1.0, silence=1.5)


@dataclass
class Noting(Silent):
    """Events that are remembered."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, line: str) -> None:
        """Remember it."""
        self.warnings.append(line)


@pytest.fixture
def blob(plain: RegistryServer, connect: Callable[..., Registry], tmp_path: Path) -> tuple[str, bytes]:
    """Return the path of a file's URL, and what is in it."""
    made = picture(99, SIZE)
    (tmp_path / "blobs").mkdir()
    made.push(connect(f"{plain.host}/files"), tmp_path / "blobs")
    return f"/v2/files/blobs/{made.layer.digest}", made.blobs[made.layer.digest]


@pytest.fixture
def fetching(environment: dict[str, str]) -> Fetching:
    """Return how files are fetched here."""
    return Fetching(environment, Noting(), patience=PATIENCE)


def test_whole(plain: RegistryServer, blob: tuple[str, bytes], fetching: Fetching, tmp_path: Path) -> None:
    path, content = blob
    for name in ("sha256", "sha512"):
        file = tmp_path / name
        checksum = f"{name}:{hashlib.new(name, content).hexdigest()}"
        found = fetch_url(f"{plain.url}{path}", file, fetching, checksum=checksum)
        assert found == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert file.read_bytes() == content


def test_it_goes_on_where_it_broke(
    proxy: FaultProxy, blob: tuple[str, bytes], fetching: Fetching, tmp_path: Path
) -> None:
    """Only what is missing is asked for, and only of the same content."""
    path, content = blob
    proxy.rules = [Rule(path="/blobs/", cut=100_000), Rule(path="/blobs/", cut=1_000_000)]
    fetch_url(f"https://{proxy.host}{path}", tmp_path / "file", fetching)
    assert (tmp_path / "file").read_bytes() == content
    ranges = [asked.headers.get("Range") for asked in proxy.asked if "/blobs/" in asked.path]
    assert ranges == [None, "bytes=100000-", "bytes=1100000-"]
    assert all(asked.headers.get("If-Range") for asked in proxy.asked[-2:])


def test_it_begins_anew_where_nothing_tells_it_is_the_same(
    proxy: FaultProxy, blob: tuple[str, bytes], fetching: Fetching, tmp_path: Path
) -> None:
    path, content = blob
    proxy.rules = [Rule(path="/blobs/", cut=100_000, more={"ETag": None, "Last-Modified": None})]
    fetch_url(f"https://{proxy.host}{path}", tmp_path / "file", fetching)
    assert (tmp_path / "file").read_bytes() == content
    assert all("Range" not in asked.headers for asked in proxy.asked)


def test_trouble_passes(
    proxy: FaultProxy, blob: tuple[str, bytes], fetching: Fetching, tmp_path: Path
) -> None:
    path, content = blob
    proxy.rules = [Rule(status=503), Rule(status=429, headers={"Retry-After": "0"}), Rule(cut=5)]
    fetch_url(f"https://{proxy.host}{path}", tmp_path / "file", fetching)
    assert (tmp_path / "file").read_bytes() == content
    assert isinstance(fetching.events, Noting)
    assert len(fetching.events.warnings) == 3


@pytest.mark.parametrize(
    ("rule", "kind", "words"),
    [
        (Rule(status=404), RegistryError, "not found"),
        (Rule(status=403), RegistryError, "access denied"),
        (Rule(status=418), RegistryError, "HTTP 418"),
        (Rule(status=503, times=9), RegistryError, "trouble, HTTP 503"),
        (Rule(cut=10, times=9), RegistryError, "broke off"),
        (Rule(corrupt=1000), ImageError, "another checksum"),
        (Rule(status=302, headers={"Location": "http://example.com/"}), RegistryError, "redirects to"),
    ],
    ids=str,
)
def test_failures(  # noqa: PLR0913  a table, and fixtures
    proxy: FaultProxy,
    blob: tuple[str, bytes],
    fetching: Fetching,
    tmp_path: Path,
    *,
    rule: Rule,
    kind: type[ChlaunchError],
    words: str,
) -> None:
    """Each is said, and leaves no file."""
    path, content = blob
    rule = Rule(**{**vars(rule), "path": "/blobs/"})
    proxy.rules = [rule]
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with pytest.raises(kind, match=words) as failure:
        fetch_url(f"https://{proxy.host}{path}?secret=1", tmp_path / "file", fetching, checksum=checksum)
    assert "secret" not in str(failure.value)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/a",
        "https://",
        "https://user:word@example.com/a",
        "https://exa mple.com/a",
        "http://[::/a",
        "https://example.com:0/a",
    ],
)
def test_no_url(url: str, fetching: Fetching, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as failure:
        fetch_url(url, tmp_path / "file", fetching)
    assert "word" not in str(failure.value)


def test_no_checksum(fetching: Fetching, tmp_path: Path) -> None:
    for checksum in ("sha256:12", "md5:" + 32 * "0", "sha256:" + 64 * "G"):
        with pytest.raises(UsageError):
            fetch_url("https://localhost/a", tmp_path / "file", fetching, checksum=checksum)


def test_names() -> None:
    assert file_name("https://example.com/a/rootfs.tar.xz?x=/y") == "rootfs.tar.xz"
    assert file_name("https://example.com") == file_name("https://example.com/") == "file"
    assert file_name("https://example.com/a/..") == file_name("https://example.com/a%2F..") == "file"
    assert file_name("https://example.com/a%2Fb") == "b"
    assert is_url("HTTPS://example.com/a")
    assert not is_url("httpsfile")
