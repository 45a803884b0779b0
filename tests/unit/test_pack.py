"""Trees in overlay form made into layers: read by GNU tar and umoci, unpacked again, the same each time."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import ImageError
from chlaunch.image.pack import pack
from chlaunch.image.unpack import Limits, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_700_000_000 * 10**9


def fill(top: Path) -> Path:
    """Make a tree of a bit of everything that layers can say, and return it."""
    (top / "d" / ("long" * 30)).mkdir(parents=True)
    (top / "d" / ("long" * 30) / ("name" * 60)).write_text("far")
    (top / "d" / "f").write_bytes(b"content" * 1000)
    (top / "d" / "empty").write_text("")
    (top / "d" / "f").chmod(0o4751)
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    os.link(top / "d" / "f", top / "a hard link")
    (top / "link").symlink_to("/etc/../passwd")
    os.link(top / "link", top / "z link", follow_symlinks=False)
    (top / "long link").symlink_to("../" * 60 + "ü")
    os.mkfifo(top / "fifo", 0o640)
    (top / os.fsdecode(b"not \xff utf-8\n")).write_text("bytes")
    os.setxattr(top / "d" / "f", "user.binary", b"\0\xff=\n")
    os.setxattr(top / "tmp", "user.ü", b"")
    os.setxattr(top / "d", "user.overlay.opaque", b"y")
    os.setxattr(top / "tmp", "user.overlay.origin", b"x")
    os.mknod(top / "d" / "gone", stat.S_IFCHR, 0)
    (top / "d" / "gone").chmod(0)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, NOW + number * 1_234_567_891), follow_symlinks=False)
    os.utime(top / "fifo", ns=(0, -1_500_000_000))
    return top


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with all there may be."""
    return fill(tmp_path / "tree")


def packed(tree: Path) -> bytes:
    """Return the layer of a tree."""
    target = io.BytesIO()
    digest = pack(tree, target)
    assert digest == f"sha256:{hashlib.sha256(target.getvalue()).hexdigest()}"
    assert len(target.getvalue()) % 10240 == 0
    return target.getvalue()


def rows(top: Path) -> Iterator[tuple[object, ...]]:
    """Give all that is to be said of a tree; times of whiteouts apart."""
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content: object = None
        attributes = {}
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        if path.is_symlink():
            content = os.readlink(path)  # noqa: PTH115  as it is written
        else:
            attributes = {
                name: os.getxattr(path, name) for name in os.listxattr(path) if "origin" not in name
            }
        mode = status.st_mode & ~0o6000
        time = 0 if stat.S_ISCHR(mode) else status.st_mtime_ns
        links = 0 if path.is_dir() else status.st_nlink
        yield path.relative_to(top), mode, status.st_rdev, time, links, content, attributes


def test_what_was_packed_is_unpacked_as_it_was(tree: Path, tmp_path: Path) -> None:
    content = packed(tree)
    again = tmp_path / "again"
    again.mkdir()
    found = unpack(io.BytesIO(content), again, Limits(), overlay=True, shown="it")
    assert list(rows(again)) == list(rows(tree))
    assert (found.whiteouts, found.opaque, found.implied) == (("d/gone",), ("d",), ())
    assert found.dropped == {}
    assert packed(again) == content


def test_the_same_tree_is_the_same_layer(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", "--sparse=always", tree, other], check=True)
    assert packed(other) == packed(tree)
    before = packed(tree)
    os.utime(tree / "d" / "f", ns=(0, 1))
    assert packed(tree) != before


def test_gnu_tar_reads_it(tree: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    done = subprocess.run(
        ["tar", "-C", theirs, "--xattrs", "-xp"], input=packed(tree), check=True, capture_output=True
    )
    said = [
        line
        for line in done.stderr.splitlines()
        if b"hdrcharset" not in line and b"implausibly old" not in line
    ]
    assert said == []
    (theirs / "d" / ".wh.gone").unlink()
    (theirs / "d" / ".wh..wh..opq").unlink()
    (tree / "d" / "gone").unlink()
    os.removexattr(tree / "d", "user.overlay.opaque")
    names = [row[0] for row in rows(tree)]
    times = {Path("d")}
    assert [row[0] for row in rows(theirs)] == names
    assert [row[1:] for row in rows(theirs) if row[0] not in times] == [
        row[1:] for row in rows(tree) if row[0] not in times
    ]


def test_members_are_sorted_and_of_root(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(tree))) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert [name.split("/") for name in names if ".wh." not in name] == sorted(
        name.split("/") for name in names if ".wh." not in name
    )
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert {name for name in names if ".wh." in name} == {"d/.wh..wh..opq", "d/.wh.gone"}
    assert names.index("d/.wh..wh..opq") == names.index("d") + 1
    marks = [member for member in members if ".wh." in member.name]
    assert {(member.size, member.mtime, member.type) for member in marks} == {(0, 0, tarfile.REGTYPE)}
    hard_links = {member.name: member.linkname for member in members if member.islnk()}
    assert hard_links == {"d/f": "a hard link", "z link": "link"}
    assert not any(member.mode & 0o6000 for member in members)


def test_umoci_unpacks_it(tree: Path, tmp_path: Path) -> None:
    def umoci(*words: str) -> None:
        subprocess.run(["umoci", *words], check=True, capture_output=True, cwd=tmp_path)

    below = tmp_path / "below"
    (below / "d" / "hidden").mkdir(parents=True)
    umoci("init", "--layout", "oci")
    umoci("new", "--image", "oci:x")
    for number, layer in enumerate((below, tree)):
        (tmp_path / f"{number}.tar").write_bytes(packed(layer))
        umoci("raw", "add-layer", "--image", "oci:x", f"{number}.tar")
    umoci("unpack", "--rootless", "--image", "oci:x", "bundle")
    root = tmp_path / "bundle" / "rootfs"
    assert sorted(path.name for path in (root / "d").iterdir()) == ["empty", "f", "long" * 30]
    assert (root / "a hard link").stat().st_ino == (root / "d" / "f").stat().st_ino
    assert (root / "d" / "f").read_bytes() == b"content" * 1000
    assert os.getxattr(root / "d" / "f", "user.binary") == b"\0\xff=\n"
    assert (root / "d" / "f").stat().st_mtime_ns == (tree / "d" / "f").stat().st_mtime_ns


def test_what_no_layer_can_say_is_left_out(tree: Path) -> None:
    before = packed(tree)
    here = Path.cwd()
    os.chdir(tree)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.chdir(here)
    os.setxattr(tree / "d" / "f", "user.a=b", b"x")
    os.setxattr(tree / "d" / "f", b"user.\xff", b"x")
    assert packed(tree) == before


def test_a_name_that_means_something_else_in_layers_is_refused(tree: Path) -> None:
    (tree / "d" / ".wh.f").write_text("")
    with pytest.raises(ImageError, match=r"can't make a layer with d/\.wh\.f: ") as caught:
        pack(tree, io.BytesIO())
    assert caught.value.hint == "rename it"


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "tree" / "d").symlink_to("../outside")
    (tmp_path / "tree" / "f").symlink_to("../outside/secret")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path / "tree"))) as archive:
        assert [(member.name, member.issym()) for member in archive] == [("d", True), ("f", True)]


def test_an_empty_tree_is_an_empty_layer(tmp_path: Path) -> None:
    assert packed(tmp_path) == bytes(10240)


def test_what_can_not_be_read_or_written_is_named(tree: Path) -> None:
    with pytest.raises(ImageError, match=r"can't make a layer of /nowhere, at \.: No such file or directory"):
        pack(Path("/nowhere"), io.BytesIO())
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(ImageError, match="a hard link: No space left on device") as caught,
    ):
        pack(tree, full)
    assert caught.value.hint == "make room there"
