"""Manifests, indexes and configurations of images: what is read, what is chosen, what is refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chlaunch.errors import ImageError
from chlaunch.image.choosing import select
from chlaunch.image.manifest import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MANIFEST_MOST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Config,
    Descriptor,
    Index,
    Manifest,
    Platform,
    make_manifest,
    parse,
    parse_config,
)

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "config": {"mediaType": OCI_CONFIG, "digest": ONE, "size": 7},
    "layers": [{"mediaType": OCI_LAYER, "digest": TWO, "size": 9}],
}
CONFIG: dict[str, Any] = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [ONE]}}


def raw(said: object) -> bytes:
    """Return it as JSON."""
    return json.dumps(said).encode()


def row(
    architecture: str, variant: str = "", digest: str = ONE, os: str = "linux", **more: Any
) -> dict[str, Any]:
    """Return a row of an index."""
    platform = {"architecture": architecture, "os": os, **({"variant": variant} if variant else {})}
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "platform": platform, **more}


def index(*rows: dict[str, Any]) -> Index:
    """Return an index, read."""
    parsed = parse(raw({"schemaVersion": 2, "manifests": rows}), OCI_INDEX, "x")
    assert isinstance(parsed, Index)
    return parsed


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST, f"{OCI_MANIFEST}; charset=utf-8"])
def test_a_manifest(kind: str) -> None:
    parsed = parse(raw(MANIFEST), kind, "x")
    assert isinstance(parsed, Manifest)
    assert parsed.media_type == kind.partition(";")[0]
    assert parsed.config.digest == ONE
    assert [(layer.digest, layer.size) for layer in parsed.layers] == [(TWO, 9)]


def test_what_was_made_is_read_again() -> None:
    made = make_manifest(Descriptor(OCI_CONFIG, ONE, 7), [Descriptor(OCI_LAYER, TWO, 9)])
    assert parse(made.raw, "", "x") == made


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ({**MANIFEST, "schemaVersion": 1}, "", "schema 1"),
        ({**MANIFEST, "manifests": []}, "", "both a manifest and an index"),
        ({**MANIFEST, "mediaType": OCI_INDEX}, "", "holds something else"),
        (MANIFEST, DOCKER_INDEX, "holds something else"),
        (MANIFEST, "text/html", "holds something else"),
        ([], "", "not a JSON object"),
        ({}, "", "neither a manifest nor an index"),
        ({"layers": []}, "", "neither a manifest nor an index"),
        ({**MANIFEST, "layers": {}}, "", "must be an array"),
        ({**MANIFEST, "layers": [1]}, "", "must be an object"),
        ({**MANIFEST, "layers": [{"digest": TWO, "size": 1}] * 501}, "", "at most 500"),
        ({**MANIFEST, "config": {"digest": "sha256:..", "size": 1}}, "", "not a sha256 digest"),
        ({**MANIFEST, "config": {"digest": "../../etc", "size": 1}}, "", "not a sha256 digest"),
        ({**MANIFEST, "config": {"digest": ONE, "size": -1}}, "", "not the size"),
        ({**MANIFEST, "config": {"digest": ONE, "size": True}}, "", "not the size"),
        ({**MANIFEST, "config": {"digest": ONE, "size": 1 << 60}}, "", "not the size"),
        ({**MANIFEST, "config": {"digest": ONE, "size": 1, "mediaType": 7}}, "", "must be a text"),
    ],
)
def test_what_is_no_manifest(said: object, kind: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        parse(raw(said), kind, "x")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (MANIFEST_MOST + 1)])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ImageError):
        parse(text, "", "x")


def test_the_platform() -> None:
    both = index(row("arm64", "v8", ONE), row("amd64", "", TWO))
    assert select(both, Platform("amd64"), "x").digest == TWO
    assert select(both, Platform("arm64"), "x").digest == ONE
    assert select(both, Platform("arm64", "v8"), "x").digest == ONE
    with pytest.raises(ImageError, match=r"no image for linux/riscv64; there are: amd64, arm64/v8"):
        select(both, Platform("riscv64"), "x")


def test_variants() -> None:
    arms = index(row("arm", "v6", ONE), row("arm", "v7", TWO))
    assert select(arms, Platform("arm", "v7"), "x").digest == TWO
    assert select(arms, Platform("arm", "v6"), "x").digest == ONE
    old = index(row("arm", "v7"))
    with pytest.raises(ImageError):
        select(old, Platform("arm", "v6"), "x")


def test_attestations_and_duplicates() -> None:
    attestation = row("unknown", digest=TWO, os="unknown")
    reference = row("amd64", digest=TWO, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    many = index(attestation, reference, row("amd64", digest=ONE), row("amd64", digest=TWO))
    assert select(many, Platform("amd64"), "x").digest == ONE


def test_other_systems() -> None:
    with pytest.raises(ImageError):
        select(index(row("amd64", os="windows")), Platform("amd64"), "x")


def test_a_configuration() -> None:
    run: dict[str, Any] = {
        "Env": ["PATH=/bin", "A=b=c"],
        "Entrypoint": ["/x"],
        "Cmd": None,
        "Labels": {"a": "b"},
        "WorkingDir": "/w",
        "User": "1000",
        "Volumes": {"/v": {}},
    }
    config = parse_config(raw({**CONFIG, "config": run}), "x")
    assert config.platform == Platform("amd64")
    assert config.environment == ("PATH=/bin", "A=b=c")
    assert (config.entrypoint, config.cmd) == (("/x",), None)
    assert (config.directory, config.user) == ("/w", "1000")
    assert (config.labels, config.volumes, config.diff_ids) == ({"a": "b"}, ("/v",), (ONE,))


@pytest.mark.parametrize(
    "said",
    [
        {**CONFIG, "config": [1]},
        {**CONFIG, "rootfs": [1]},
        {**CONFIG, "rootfs": {"diff_ids": ["x"]}},
        {**CONFIG, "config": {"Env": "A=b"}},
        {**CONFIG, "config": {"Env": ["A=\0"]}},
        {**CONFIG, "config": {"Cmd": [1]}},
        {**CONFIG, "config": {"Labels": [1]}},
        {**CONFIG, "history": {"a": 1}},
        {**CONFIG, "architecture": 64},
    ],
)
def test_what_is_no_configuration(said: object) -> None:
    with pytest.raises(ImageError):
        parse_config(raw(said), "x")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from([ONE, TWO, OCI_MANIFEST]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "config",
                    "layers",
                    "manifests",
                    "digest",
                    "size",
                    "mediaType",
                    "platform",
                    "rootfs",
                    "diff_ids",
                    "Env",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["", OCI_MANIFEST, OCI_INDEX]))
def test_anything_is_read_or_refused(said: object, kind: str) -> None:
    for read in (lambda text: parse(text, kind, "x"), lambda text: parse_config(text, "x")):
        with suppress(ImageError):  # nothing else may come
            assert isinstance(read(raw(said)), Manifest | Index | Config)
