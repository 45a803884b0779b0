"""What networks and registries do to us: each broken thing ends well, or in one sentence that says what it was."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from faults import FaultProxy, Rule
from made import layout, store_at
from pictures import Picture, picture

from chlaunch.cli.progress import Lines
from chlaunch.errors import RegistryError
from chlaunch.image.finding import Wanted
from chlaunch.image.manifest import DOCKER_MANIFEST, MANIFEST_MOST, Descriptor
from chlaunch.image.pull import pull as pull_image
from chlaunch.image.push import JOBS, Goal, push
from chlaunch.image.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from certificates import Authority

    from chlaunch.image.registry import Registry


@pytest.fixture(scope="module")
def one() -> Picture:
    """Return an image whose layer does not fit into one packet, nor into two."""
    return picture(50, 3_000_000)


@pytest.fixture
def registry(proxy: FaultProxy, connect: Callable[..., Registry], one: Picture, tmp_path: Path) -> Registry:
    """Return a client that asks through the proxy, for an image that is there."""
    registry = connect(f"{proxy.host}/faults:1")
    if not registry.has_blob(one.layer):
        one.push(registry, tmp_path)
    return registry


def pull(registry: Registry, one: Picture, tmp_path: Path) -> None:
    """Pull the layer, which must come as it is, and be counted as it is."""
    done: list[int] = []
    registry.download(one.layer, tmp_path / "pulled", done.append)
    assert (tmp_path / "pulled").read_bytes() == one.blobs[one.layer.digest]
    assert sum(done) == one.layer.size


def test_a_connection_that_breaks_is_gone_on_with(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path, warnings: list[str]
) -> None:
    proxy.rules = [Rule(path="/blobs/", cut=1_000_000), Rule(path="/blobs/", cut=500_000)]
    pull(registry, one, tmp_path)
    ranges = [asked.headers.get("Range") for asked in proxy.paths("GET", "/blobs/")]
    assert ranges == [None, f"bytes=1000000-{one.layer.size - 1}", f"bytes=1500000-{one.layer.size - 1}"]
    assert len(warnings) == 2
    assert all("trying again" in warning for warning in warnings)


def test_a_connection_that_always_breaks_after_something_is_no_reason_to_give_up(
    registry: Registry, proxy: FaultProxy, tmp_path: Path
) -> None:
    large = picture(51, 12_000_000)
    large.push(registry, tmp_path, "large")
    proxy.rules = [Rule(path="/blobs/", times=9, cut=1_200_000)]
    pull(registry, large, tmp_path)
    assert proxy.rules[0].times == 0


def test_a_connection_that_always_breaks_at_once(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path, warnings: list[str]
) -> None:
    proxy.rules = [Rule(path="/blobs/", times=99, cut=1000)]
    with pytest.raises(RegistryError, match=f"{proxy.host}.*{one.layer.digest}.*broke off"):
        pull(registry, one, tmp_path)
    assert len(proxy.paths("GET", "/blobs/")) == 5
    assert len(warnings) == 4
    assert (tmp_path / "pulled").stat().st_size == 5000  # the next pull goes on there


def test_a_registry_without_ranges(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path
) -> None:
    whole = one.blobs[one.layer.digest]
    proxy.rules = [Rule(path="/blobs/", cut=1_000_000), Rule(path="/blobs/", status=200, body=whole)]
    pull(registry, one, tmp_path)


def test_a_registry_that_gives_another_part(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path
) -> None:
    other = {"Content-Range": f"bytes 7-{one.layer.size - 1}/{one.layer.size}"}
    proxy.rules = [Rule(path="/blobs/", cut=1000), Rule(path="/blobs/", more=other)]
    with pytest.raises(RegistryError, match="another part"):
        pull(registry, one, tmp_path)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_trouble_that_passes(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path, status: int
) -> None:
    proxy.rules = [Rule(path="/blobs/", times=3, status=status), Rule("GET", "/manifests/", 2, status=status)]
    pull(registry, one, tmp_path)
    assert registry.manifest()[0] == one.manifest.raw
    assert [rule.times for rule in proxy.rules] == [0, 0]


def test_a_foreign_layer(registry: Registry, one: Picture, tmp_path: Path) -> None:
    """It is somewhere else, and named; one that the registry has is fetched as any other."""
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    registry.download(replace(one.layer, media_type=kind), tmp_path / "there", lambda _: None)
    lacking = f"sha256:{'0' * 64}"
    with pytest.raises(RegistryError, match=f"{lacking} is a foreign layer, and not in this registry"):
        registry.download(Descriptor(kind, lacking, 1), tmp_path / "layer", lambda _: None)


def test_trouble_that_does_not_pass(registry: Registry, proxy: FaultProxy) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached\\u001b[31m your limit"}]}'
    proxy.rules = [Rule(method, "/manifests/", 99, 429, body=body) for method in ("GET", "HEAD")]
    with pytest.raises(RegistryError, match="too many requests: TOOMANYREQUESTS: You have reached") as caught:
        registry.manifest()
    assert caught.value.message.isprintable()
    assert f"ch-image login {proxy.host}" in caught.value.hint
    assert len(proxy.paths("GET", "/manifests/")) == 5


def test_a_registry_that_asks_to_wait(registry: Registry, proxy: FaultProxy, one: Picture) -> None:
    proxy.rules = [Rule(path="/manifests/", status=429, headers={"Retry-After": "1"})]
    begun = time.monotonic()
    assert registry.manifest()[0] == one.manifest.raw
    assert time.monotonic() - begun >= 1


def test_a_wrong_byte_is_found_and_the_layer_fetched_again(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path
) -> None:
    proxy.rules = [Rule(path="/blobs/", corrupt=2_000_000)]
    pull(registry, one, tmp_path)


def test_a_byte_that_is_always_wrong(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path
) -> None:
    proxy.rules = [Rule(path="/blobs/", times=9, corrupt=2_000_000)]
    with pytest.raises(RegistryError, match="another digest"):
        pull(registry, one, tmp_path)
    assert len(proxy.paths("GET", "/blobs/")) == 2
    assert (tmp_path / "pulled").stat().st_size == 0  # nothing wrong is left to go on with


@pytest.mark.parametrize(
    "lie",
    [
        (Rule(path="/blobs/", extra=b"x" * 5000), "says that there are more"),
        (Rule(path="/blobs/", length=1000), "has less"),
        (Rule(path="/blobs/", status=200, body=b"", headers={"Content-Encoding": "gzip"}), "has less"),
    ],
    ids=["more", "less", "nothing"],
)
def test_a_registry_that_lies_about_the_length(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path, lie: tuple[Rule, str]
) -> None:
    rule, words = lie
    proxy.rules = [replace(rule)]
    with pytest.raises(RegistryError, match=words):
        pull(registry, one, tmp_path)
    assert (tmp_path / "pulled").stat().st_size == 0


def test_a_registry_that_does_not_say_a_length_and_does_not_end(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path
) -> None:
    proxy.rules = [Rule(path="/blobs/", extra=b"x" * 50_000_000, length=-1)]
    with pytest.raises(RegistryError, match="sends more"):
        pull(registry, one, tmp_path)
    assert (tmp_path / "pulled").stat().st_size <= one.layer.size


def test_a_registry_that_stops_answering(
    registry: Registry, proxy: FaultProxy, one: Picture, warnings: list[str]
) -> None:
    proxy.rules = [Rule(path="/manifests/", silent=True)]
    assert registry.manifest()[0] == one.manifest.raw
    assert re.search("stopped answering; trying again", warnings[0])


def test_nobody_listens(connect: Callable[..., Registry], authority: Authority) -> None:
    with FaultProxy(1, authority.issue("gone")) as gone:
        host = gone.host
    with pytest.raises(TransientError, match=f"https://{host}: no connection: nothing listens there"):
        connect(f"{host}/a/b:1").resolve()


def test_a_manifest_that_is_not_what_was_asked_for(
    registry: Registry, proxy: FaultProxy, one: Picture
) -> None:
    proxy.rules = [Rule(path="/manifests/", times=2, status=200, body=b"{}")]
    with pytest.raises(RegistryError, match="something else as sha256:"):
        registry.manifest(one.manifest.digest)
    assert registry.manifest("1")[0] == b"{}"  # a tag can be anything; who reads it will see
    wrong = {"Docker-Content-Digest": f"sha256:{'0' * 64}"}
    proxy.rules = [Rule(method, "/manifests/", more=wrong) for method in ("GET", "HEAD")]
    with pytest.raises(RegistryError, match="something else as 1"):
        registry.manifest("1")


def test_a_manifest_without_end(registry: Registry, proxy: FaultProxy) -> None:
    proxy.rules = [Rule(path="/manifests/", status=200, body=b" " * (MANIFEST_MOST + 1))]
    with pytest.raises(RegistryError, match="more than 4096 KiB"):
        registry.manifest("1")


def test_a_manifest_that_breaks_off(registry: Registry, proxy: FaultProxy, one: Picture) -> None:
    proxy.rules = [Rule(path="/manifests/", cut=100)]
    assert registry.manifest()[0] == one.manifest.raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"errors": 1}',
        b'{"errors": {}}',
        b'{"errors": ["x"]}',
        b'{"errors": [{"code": 1}]}',
    ],
)
def test_a_refusal_that_makes_no_sense(registry: Registry, proxy: FaultProxy, body: bytes) -> None:
    proxy.rules = [Rule(path="/manifests/", status=418, body=body)]
    with pytest.raises(RegistryError, match=r"faults:\S+: unexpected answer, HTTP 418$"):
        registry.manifest()


@pytest.mark.parametrize(
    "rule",
    [
        Rule("HEAD", "/manifests/", more={"Docker-Content-Digest": None}),
        Rule("HEAD", "/manifests/", status=405),
        Rule("HEAD", "/manifests/", more={"Docker-Content-Digest": "sha256:nonsense"}),
    ],
    ids=["no digest", "no HEAD", "nonsense"],
)
def test_a_registry_that_says_no_digest(
    registry: Registry, proxy: FaultProxy, one: Picture, rule: Rule
) -> None:
    proxy.rules = [rule]
    assert registry.resolve() == (one.manifest.digest, one.manifest.media_type)


def test_what_is_asked_for(registry: Registry, proxy: FaultProxy) -> None:
    registry.manifest()
    headers = proxy.paths("GET", "/manifests/")[-1].headers
    assert DOCKER_MANIFEST in headers["Accept"]
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers
    assert "Authorization" not in headers


def test_a_connection_is_used_again(
    registry: Registry, proxy: FaultProxy, one: Picture, tmp_path: Path
) -> None:
    pull(registry, one, tmp_path)
    before = proxy.connections
    new = picture(58)
    assert not registry.has_blob(new.layer)
    new.push(registry, tmp_path, "again")
    assert registry.has_blob(new.layer)
    assert registry.resolve("again")[0] == new.manifest.digest
    pull(registry, one, tmp_path)
    assert proxy.connections == before


def test_a_redirect_without_end(registry: Registry, proxy: FaultProxy) -> None:
    proxy.rules = [Rule(path="/", times=99, status=307, headers={"Location": "/v2/again"})]
    with pytest.raises(RegistryError, match="redirects without end"):
        registry.manifest()
    assert len(proxy.paths("GET", "/v2/again")) == 5


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://localhost:1/x", "redirects to http://localhost:1, where anybody"),
        ("http://example.com/x", "redirects to http://example.com, where anybody"),
        ("file:///etc/passwd", "not the URL of a server"),
        ("https://user:word@localhost/", "not the URL of a server"),
        ("https://[::1/", "not the URL of a server"),
        ("https://../", "not the URL of a server"),
        (f"https://{'a' * 70}.example/", "not the URL of a server"),
        ("https://localhost:99999/", "not the URL of a server"),
    ],
)
def test_a_redirect_to_where_we_do_not_go(
    registry: Registry, proxy: FaultProxy, location: str, words: str
) -> None:
    proxy.rules = [Rule(path="/manifests/", status=307, headers={"Location": location})]
    with pytest.raises(RegistryError, match=words):
        registry.manifest()


def test_an_upload_that_breaks_is_gone_on_with(registry: Registry, proxy: FaultProxy, tmp_path: Path) -> None:
    new = picture(52, 2_000_000)
    proxy.rules = [Rule("PATCH", swallow=1_000_000), Rule("GET", "/uploads/", offset=1_000_000)]
    path = tmp_path / "layer"
    path.write_bytes(new.blobs[new.layer.digest])
    done: list[int] = []
    registry.put_blob(new.layer, path, done.append)
    assert sum(done) == new.layer.size
    assert registry.has_blob(new.layer)
    sent = [asked.headers for asked in proxy.paths("PATCH")]
    assert sent[1]["Content-Range"] == f"1000000-{new.layer.size - 1}"
    assert len(proxy.paths("POST")) == 1


def test_an_upload_that_is_lost_begins_again(registry: Registry, proxy: FaultProxy, tmp_path: Path) -> None:
    new = picture(53, 2_000_000)
    proxy.rules = [Rule("PATCH", swallow=1_000_000), Rule("GET", "/uploads/", status=404)]
    path = tmp_path / "layer"
    path.write_bytes(new.blobs[new.layer.digest])
    done: list[int] = []
    registry.put_blob(new.layer, path, done.append)
    assert sum(done) == new.layer.size
    assert registry.has_blob(new.layer)
    assert len(proxy.paths("POST")) == 2


def test_an_upload_whose_end_is_not_confirmed(registry: Registry, proxy: FaultProxy, tmp_path: Path) -> None:
    new = picture(54)
    proxy.rules = [Rule("PUT", "/uploads/", cut=0, length=5)]
    path = tmp_path / "layer"
    path.write_bytes(new.blobs[new.layer.digest])
    registry.put_blob(new.layer, path, lambda _: None)
    assert registry.has_blob(new.layer)


def test_a_registry_without_patch(registry: Registry, proxy: FaultProxy, tmp_path: Path) -> None:
    new = picture(55)
    proxy.rules = [Rule("PATCH", status=405, times=9)]
    path = tmp_path / "layer"
    path.write_bytes(new.blobs[new.layer.digest])
    done: list[int] = []
    registry.put_blob(new.layer, path, done.append)
    assert sum(done) == new.layer.size
    assert registry.has_blob(new.layer)
    assert len(proxy.paths("PATCH")) == 1


def test_an_upload_is_sent_by_tls_where_the_registry_does_not_know_of_it(
    registry: Registry, proxy: FaultProxy, tmp_path: Path
) -> None:
    new = picture(56)
    proxy.rules = [
        Rule("POST", more={"Location": f"http://{proxy.host}/v2/faults/blobs/uploads/gone?_state=x"})
    ]
    path = tmp_path / "layer"
    path.write_bytes(new.blobs[new.layer.digest])
    with pytest.raises(RegistryError, match="BLOB_UPLOAD"):
        registry.put_blob(new.layer, path, lambda _: None)
    assert proxy.paths("PATCH", "/uploads/gone?_state=x")


def test_an_upload_that_is_refused_ends_the_others(
    registry: Registry, proxy: FaultProxy, tmp_path: Path, warnings: list[str]
) -> None:
    """Of those on their way none is begun again, and of those that wait none at all."""
    store = store_at(tmp_path / "storage")
    source = layout(tmp_path / "layout", [{f"file{number}": os.urandom(1000)} for number in range(12)])
    image = pull_image(store, source, Wanted("many", "many", "1"), Lines(2))
    proxy.rules = [Rule("PATCH", times=JOBS - 1, silent=True), Rule("PATCH", times=99, status=403)]
    with pytest.raises(RegistryError, match="denied"):
        push(store, image, Goal(registry, "many"), Lines(2))
    assert len(proxy.paths("PATCH")) == JOBS
    assert len(proxy.paths("POST")) <= JOBS + 1
    assert len(warnings) < JOBS  # each that was silent may have tried once more, and has seen then
    assert list((store.path / "tmp").iterdir()) == []


def test_an_upload_to_where_anybody_reads_along(
    registry: Registry, proxy: FaultProxy, tmp_path: Path
) -> None:
    new = picture(57)
    proxy.rules = [Rule("POST", more={"Location": "http://example.com/upload"})]
    path = tmp_path / "layer"
    path.write_bytes(new.blobs[new.layer.digest])
    with pytest.raises(RegistryError, match=r"sends us to http://example\.com, where anybody"):
        registry.put_blob(new.layer, path, lambda _: None)
