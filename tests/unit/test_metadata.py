"""What an image says of itself: to the files in /ch, as ch-run reads them, and back."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chlaunch.errors import ImageError
from chlaunch.image import metadata
from chlaunch.image.manifest import Config, Platform, parse_config
from chlaunch.rootfs import Rootfs

if TYPE_CHECKING:
    from pathlib import Path

SAID = {
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "created": "2026-01-02T03:04:05Z",
    "config": {
        "Env": ["B=2=3", "A='quoted'", "LINES=a\nb", "EMPTY=", "A='later'", "nameless", "=x"],
        "Entrypoint": ["/bin/echo", "", "zwei Wörter"],
        "Cmd": ["-n"],
        "WorkingDir": "/work",
        "User": "1000:100",
        "Labels": {"one": "1"},
        "Volumes": {"/data": {}},
        "StopSignal": "SIGUSR1",
    },
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]},
    "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}],
}


def config(**changes: object) -> Config:
    return parse_config(json.dumps({**SAID, **changes}).encode(), "test")


def write(root: Path, files: dict[str, bytes]) -> Rootfs:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(text)
    return Rootfs(str(root))


def test_there_and_back(tmp_path: Path) -> None:
    files = metadata.metadata_files(config())
    assert files["ch/environment"] == b"A=''later''\nB=2=3\nEMPTY=\n"
    assert files["ch/cmd"] == b"angi\0\0\0\x02-n"
    kept = metadata.read_metadata(write(tmp_path, files), "test")
    again = json.loads(metadata.config_of(kept, ["sha256:" + "0" * 64]))
    wanted = {**SAID, "config": {**SAID["config"], "Env": ["A='later'", "B=2=3", "EMPTY=", "LINES=a\nb"]}}  # type: ignore[dict-item]
    assert again == wanted


def test_keys_are_charliecloud_s() -> None:
    said = json.loads(metadata.metadata_files(config())["ch/metadata.json"])
    keys = "arch arg cmd cwd entrypoint env history labels shell user volumes"
    assert " ".join(said) == keys
    assert (said["arch"], said["cwd"], said["shell"]) == ("arm64/v8", "/work", ["/bin/sh", "-c"])


def test_changed_files_win(tmp_path: Path) -> None:
    rootfs = write(tmp_path, metadata.metadata_files(config()))
    (tmp_path / "ch/environment").write_text("A=mine\n\nno line\n")
    (tmp_path / "ch/cmd").write_bytes(metadata.command_text(["mine"]))
    (tmp_path / "ch/entrypoint").unlink()
    kept = metadata.read_metadata(rootfs, "test")
    assert kept.environment == ("A=mine", "LINES=a\nb")
    assert kept.cmd == ("mine",)
    assert kept.entrypoint == ("/bin/echo", "", "zwei Wörter")


def test_history_counts_layers() -> None:
    two = ["sha256:" + "1" * 64, "sha256:" + "2" * 64]
    rows = json.loads(metadata.config_of(config(), two))["history"]
    assert [row.get("empty_layer", False) for row in rows] == [True, True, False, False]


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_any_words(words: list[str]) -> None:
    text = metadata.command_text(words)
    assert metadata.parse_command(text, "test") == tuple(words)
    with pytest.raises(ImageError):
        metadata.parse_command(text + b"x", "test")


@given(st.binary(max_size=64))
def test_any_text_as_words(text: bytes) -> None:
    try:
        words = metadata.parse_command(text, "test")
    except ImageError:
        return
    assert metadata.command_text(words) == text


def test_what_ch_run_would_not_read() -> None:
    for changes in (
        {"Cmd": ["x"] * 5000},
        {"Entrypoint": ["x" * (1 << 20)]},
        {"Env": ["A=" + "x" * (1 << 20)]},
    ):
        with pytest.raises(ImageError):
            metadata.metadata_files(config(config=changes))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"env": ["A=1"]}',
        b'{"env": {"A": 1}}',
        b'{"cmd": "x"}',
        b'{"arch": 1}',
        b'{"cwd": ["x"]}',
    ],
    ids=lambda text: str(text[:12]),
)
def test_metadata_that_makes_no_sense(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/sh", tmp_path / "bin/sh")
    rootfs = write(tmp_path, {"ch/metadata.json": text})
    with pytest.raises(ImageError, match=r"/ch/metadata\.json"):
        metadata.read_metadata(rootfs, "test")


HEADERS = {
    "amd64": b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\0",
    "arm64/v8": b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\0",
    "s390x": b"\x7fELF\x02\x02" + bytes(12) + b"\0\x16",
    "ppc64": b"\x7fELF\x02\x02" + bytes(12) + b"\0\x15",
    "ppc64le": b"\x7fELF\x02\x01" + bytes(12) + b"\x15\0",
}


@pytest.mark.parametrize("name", HEADERS)
def test_architecture_of_programs(tmp_path: Path, name: str) -> None:
    rootfs = write(tmp_path, {"bin/sh": b"#!/bin/busybox", "usr/lib/libc.so.6": HEADERS[name]})
    (tmp_path / "lib64").symlink_to("/usr/lib")
    assert str(metadata.platform_of(rootfs, "test")) == name


def test_architecture_said(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="architecture"):
        metadata.platform_of(Rootfs(str(tmp_path)), "test")
    rootfs = write(tmp_path, {"ch/metadata.json": b'{"arch": "arm/v6"}'})
    assert metadata.platform_of(rootfs, "test") == Platform("arm", "v6")
    write(tmp_path, {"bin/sh": HEADERS["amd64"]})  # programs don't lie
    assert metadata.platform_of(rootfs, "test") == Platform("amd64")


def test_ch_run_reads_it(ch_run: Path, image_tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "image"
    shutil.copytree(image_tiny, root, symlinks=True)
    said = replace(
        config(), environment=("A='b c'", "B=1"), entrypoint=("/bin/sh", "-c", 'echo "$A:$B:$1"', "x")
    )
    write(root, metadata.metadata_files(replace(said, cmd=("two words",))))
    done = subprocess.run([ch_run, "--set-env", str(root)], check=True, capture_output=True, text=True)
    assert done.stdout == "'b c':1:two words\n"
