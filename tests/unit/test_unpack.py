"""Layers made into files: what GNU tar and Python write, what strangers write by hand, and anything at all."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import random
import stat
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from chlaunch.errors import ImageError, StorageError
from chlaunch.image.removal import remove_tree
from chlaunch.image.unpack import Limits, Unpacked, settle, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(size=1 << 30, members=1000)
NOW = 1_700_000_000
# `make soak` wants more examples.
MORE = int(os.environ.get("CHLAUNCH_EXAMPLES") or 1)

PLAIN = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member, and what is in it."""
    made = tarfile.TarInfo(name)
    made.type, made.size, made.mtime = kind, len(content), NOW
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a directory."""
    return member(name, tarfile.DIRTYPE, **fields)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """Return a link."""
    return member(name, kind, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """Return a hard link."""
    return link(name, target, tarfile.LNKTYPE)


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT, **words: Any) -> bytes:
    """Return a tar."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, errors="surrogateescape", **words) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return target.getvalue()


def block(name: bytes, kind: bytes, size: bytes, content: bytes = b"", more: bytes = b"") -> bytes:
    """Return a header as given, with the right checksum, and the content after it in blocks. more: from byte 345."""
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"00000000000\0"
    head += b" " * 8 + kind + bytes(100) + b"ustar  \0" + bytes(80) + more
    head = head.ljust(512, b"\0")
    head = head[:148] + b"%06o\0 " % sum(head) + head[156:]
    return head + content + bytes(-len(content) % 512)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """Return a header of records as given."""
    return block(b"pax", kind, b"%011o" % len(records), records)


def record(key: bytes, value: bytes) -> bytes:
    """Return a record of a header."""
    size = len(key) + len(value) + 3
    while size != len(key) + len(value) + 3 + len(str(size)):
        size = len(key) + len(value) + 3 + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)


def unpacked(content: bytes, tree: Path, limits: Limits = LIMITS, *, overlay: bool = False) -> Unpacked:
    """Unpack into a new directory."""
    tree.mkdir()
    return unpack(io.BytesIO(content), tree, limits, overlay=overlay, shown="layer 1")


def target_of(path: Path) -> str:
    """Return what a link says."""
    return os.readlink(path)  # noqa: PTH115  as it is written


def row(path: Path, top: Path) -> tuple[Any, ...]:
    """Return all that is to be said of a file; owners' rights apart, which are always there."""
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    given = {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600, stat.S_IFIFO: 0o600}.get(kind, 0)
    content: Any = None
    if kind == stat.S_IFREG:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif kind == stat.S_IFLNK:
        content = target_of(path)
    attributes = {}
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    name = os.fsencode(path.relative_to(top))
    links = status.st_nlink if kind == stat.S_IFREG else 0
    return name, status.st_mode & ~0o6000 | given, status.st_mtime_ns, content, links, attributes


def rows(top: Path) -> list[tuple[Any, ...]]:
    """Return all that is to be said of a tree."""
    return sorted(row(path, top) for path in top.rglob("*"))


def names(top: Path) -> list[str]:
    """Return the paths in a tree."""
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return where a tree may be made."""
    return tmp_path / "tree"


def fill(top: Path) -> None:
    """Make a bit of everything."""
    (top / "a" / "deep" / ("long" * 30)).mkdir(parents=True)
    far = top / "a" / "deep" / ("long" * 30) / ("name" * 50)
    far.write_text("far")
    (top / "empty").mkdir(mode=0o700)
    for mode in (0o777, 0o1777, 0o555, 0o000, 0o4755, 0o2750):
        (top / f"d{mode:o}").mkdir()
        (top / f"d{mode:o}").chmod(mode)
        (top / f"f{mode:o}").write_text(f"{mode:o}")
        (top / f"f{mode:o}").chmod(mode)
    (top / "link").symlink_to("/etc/passwd")
    (top / "long link").symlink_to("../" * 60 + "x")
    (top / "one").write_bytes(random.Random(3).randbytes(3_000_000))  # noqa: S311  the same each time
    os.link(top / "one", top / "zwei")
    os.link(far, top / "a" / ("other" * 40))
    os.link(top / "link", top / "link again", follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o640)
    os.setxattr(top / "one", "user.ü", b"\0\xff=\n")
    os.setxattr(top / "empty", "user.empty", b"")
    (top / "new\nline \t\\ ü").write_text("")
    (top / os.fsdecode(b"not \xff utf-8 \xe4")).write_text("bytes")
    (top / os.fsdecode(b"not \xff utf-8 \xe4" * 15)).symlink_to(os.fsdecode(b"\xfe"))
    with (top / "sparse").open("wb") as file:
        for offset in (0, 1 << 20, 5 << 20, 20 << 20):
            file.seek(offset)
            file.write(b"island" * 1000)
        file.truncate(30 << 20)
    with (top / "hole").open("wb") as file:
        file.truncate(10 << 20)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, NOW * 10**9 + number * 1_234_567), follow_symlinks=False)


FORMS = {
    "pax": "--format=posix --sparse --xattrs",
    "sparse 0.0": "--format=posix --sparse --sparse-version=0.0",
    "sparse 0.1": "--format=posix --sparse --sparse-version=0.1",
    "gnu": "--format=gnu --sparse",
    "old gnu": "--format=oldgnu",
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
def test_all_is_as_gnu_tar_makes_it(options: str, tmp_path: Path, tree: Path) -> None:
    source, theirs = tmp_path / "source", tmp_path / "theirs"
    source.mkdir()
    theirs.mkdir()
    fill(source)
    words = ["tar", "-C", str(source), "--sort=name", *options.split(), "-cf", str(tmp_path / "tar"), "."]
    subprocess.run(words, check=True)
    content = (tmp_path / "tar").read_bytes()
    tarring = subprocess.run(
        ["tar", "-C", theirs, "--xattrs", "-xpf", "-"], input=content, check=False, capture_output=True
    )
    assert tarring.returncode == 0, tarring.stderr
    found = unpacked(content, tree)
    assert rows(tree) == rows(theirs)
    assert tree.lstat().st_mtime_ns == theirs.lstat().st_mtime_ns
    assert found.diff_id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (found.size, found.implied, found.links_below) == (len(content), (), ())
    assert found.members == len(names(tree)) + 1
    assert found.dropped == {"set-id bit": 4}
    if "--sparse" in options:
        assert (tree / "sparse").stat().st_blocks * 512 < 1 << 20
        assert (tree / "hole").stat().st_blocks == 0


@pytest.mark.parametrize("options", ["--format=ustar", "--format=v7"])
def test_what_old_formats_can_say_is_as_gnu_tar_makes_it(options: str, tmp_path: Path, tree: Path) -> None:
    source, theirs = tmp_path / "source", tmp_path / "theirs"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "file").write_text("file")
    (source / "a" / "link").symlink_to("b")
    if options == "--format=ustar":
        (source / ("p" * 90)).mkdir()
        (source / ("p" * 90) / ("q" * 60)).write_text("divided")
    theirs.mkdir()
    made = subprocess.run(["tar", "-C", source, options, "-c", "."], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", theirs, "-xp"], input=made, check=True)
    unpacked(made, tree)
    assert rows(tree) == rows(theirs)


def test_modes_stay_whatever_the_umask_but_for_the_owner(tree: Path) -> None:
    made = [directory(f"{mode:o}", mode=mode) for mode in (0o777, 0o1777, 0o000, 0o6755)]
    made += [member(f"{mode:o}/f", mode=mode) for mode in (0o777, 0o1777, 0o000, 0o6755)]
    made += [member("implied/fifo", tarfile.FIFOTYPE, mode=0o222)]
    before = os.umask(0o777)
    try:
        found = unpacked_in_existing(archive(*made), tree)
    finally:
        os.umask(before)
    modes = {name: (tree / name).lstat().st_mode & 0o7777 for name in names(tree)}
    assert modes == {
        "777": 0o777, "777/f": 0o777, "1777": 0o1777, "1777/f": 0o1777, "0": 0o700, "0/f": 0o600,
        "6755": 0o755, "6755/f": 0o755, "implied": 0o755, "implied/fifo": 0o622,
    }  # fmt: skip
    assert found.dropped == {"set-id bit": 2}
    assert found.implied == ("implied",)
    assert tree.lstat().st_mode & 0o7777 == 0o755


def unpacked_in_existing(content: bytes, tree: Path) -> Unpacked:
    """Unpack into a directory that is made with a mode of its own."""
    tree.mkdir()
    tree.chmod(0o700)
    return unpack(io.BytesIO(content), tree, LIMITS, overlay=False, shown="layer 1")


def test_users_that_are_not_root_can_unpack_what_has_no_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    made = [directory("d", mode=0), member("d/f", mode=0, content=b"1"), member("d/f", mode=0, content=b"2")]
    made += [directory("d/e", mode=0o111), hard_link("d/e/h", "d/f"), directory("d", mode=0)]
    made += [member("d/.wh.gone"), member("d/e/.wh..wh..opq"), link("l", "x"), hard_link("m", "l")]
    script = """if True:
        import io, os, sys
        from pathlib import Path
        from chlaunch.image.unpack import Limits, unpack
        os.umask(0o777)
        Path("tree").mkdir()
        Path("tree").chmod(0o700)
        unpack(sys.stdin.buffer, Path("tree"), Limits(), overlay=True, shown="layer")
        """
    as_nobody(script, tmp_path, archive(*made))
    assert names(tmp_path / "tree") == ["d", "d/e", "d/e/h", "d/f", "d/gone", "l", "m"]
    assert (tmp_path / "tree/d/e/h").read_text() == "2"


def as_nobody(script: str, here: Path, stdin: bytes = b"") -> None:
    """Run Python in a directory, as a user that may do nothing beyond."""
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    done = subprocess.run(
        [sys.executable, "-c", script], input=stdin, capture_output=True, cwd=here, check=False, **user
    )
    assert done.returncode == 0, done.stderr.decode()


def test_times_are_exact_and_those_of_directories_too(tree: Path) -> None:
    made = [
        directory("d"),
        member("d/f", pax_headers={"mtime": "1234567890.123456789"}),
        link("d/l", "x"),
        member("d/old", pax_headers={"mtime": "-1.5"}),
        member("d/wrong", pax_headers={"mtime": "1e99"}),
        member("d/far", pax_headers={"mtime": "99999999999999999999"}),
    ]
    unpacked(archive(*made), tree)
    times = {name: (tree / name).lstat().st_mtime_ns for name in names(tree)}
    assert times["d"] == times["d/l"] == NOW * 10**9
    assert times["d/f"] == 1234567890_123456789
    assert times["d/old"] == -1_500_000_000
    assert names(tree) == ["d", "d/f", "d/far", "d/l", "d/old", "d/wrong"]


def test_global_headers_hold_for_all_that_follow(tree: Path) -> None:
    content = archive(
        member("a"), member("b", pax_headers={"mtime": "7.25"}), pax_headers={"mtime": "5.5", "comment": "x"}
    )
    unpacked(content, tree)
    assert [(tree / name).lstat().st_mtime_ns for name in "ab"] == [5_500_000_000, 7_250_000_000]


def test_attributes_of_users_are_kept_and_others_dropped(tree: Path) -> None:
    value = b"\0\xff=\n%"
    text = value.decode("utf-8", "surrogateescape")
    headers = {
        "SCHILY.xattr.user.one": text,
        "LIBARCHIVE.xattr.user.one": base64.b64encode(b"the same, elsewhere").decode(),
        "LIBARCHIVE.xattr.user.two%3D": base64.b64encode(value).decode().rstrip("="),
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.security.capability": "x",
        "SCHILY.acl.access": "user::rwx",
    }
    made = [directory("d", pax_headers=headers), member("f", pax_headers=headers), link("l", "f")]
    made[2][0].pax_headers = {"SCHILY.xattr.user.one": "x"}
    found = unpacked(archive(*made), tree, overlay=True)
    for name in "df":
        kept = {name_: os.getxattr(tree / name, name_) for name_ in os.listxattr(tree / name)}
        assert kept == {"user.one": value, "user.two=": value}
    assert found.dropped == {"xattr": 5 + 5 + 1}


def in_namespace(script: str, here: Path, stdin: bytes) -> str:
    """Run Python in a mount namespace of its own, and return what it says."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, sys.executable]
    done = subprocess.run(words, input=stdin, capture_output=True, cwd=here, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


UNPACK = """if True:
    import sys
    from pathlib import Path
    from chlaunch.errors import ImageError
    from chlaunch.image.unpack import Limits, unpack
    Path("m/tree").mkdir()
    try:
        print(unpack(sys.stdin.buffer, Path("m/tree"), Limits(), overlay=False, shown="layer 1").dropped)
    except ImageError as error:
        print(error.message, error.hint, sep="|")
"""


def test_where_there_are_no_attributes_they_are_counted(tmp_path: Path) -> None:
    made = archive(member("f", pax_headers={"SCHILY.xattr.user.one": "1"}), directory("d"))
    said = in_namespace(f"mkdir m; mount -t ramfs none m; exec $0 -c '{UNPACK}'", tmp_path, made)
    assert said == "{'xattr': 1}\n"


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    made = archive(*[member(str(number), content=bytes(300_000)) for number in range(10)])
    said = in_namespace(f"mkdir m; mount -t tmpfs -o size=1m none m; exec $0 -c '{UNPACK}'", tmp_path, made)
    assert said.startswith("can't unpack layer 1 in m/tree: No space left on device|make room there")


def test_devices_and_unknown_kinds_are_dropped_and_counted(tree: Path) -> None:
    made = [member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3), member("sda", tarfile.BLKTYPE)]
    made += [member("white", tarfile.CHRTYPE), member("label", b"V"), member("dump", b"D", b"x" * 700)]
    made += [member("dev/file", content=b"kept"), member("contiguous", tarfile.CONTTYPE, b"kept")]
    found = unpacked(archive(*made, form=tarfile.GNU_FORMAT), tree)
    assert names(tree) == ["contiguous", "dev", "dev/file"]
    assert found.dropped == {"device": 3, "member of unknown kind": 2}


# Hidden things.


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_member_wins_over_a_whiteout_of_its_name(order: tuple[int, ...], tree: Path) -> None:
    made = [member("d/.wh.file"), member("d/file", content=b"new"), member("d/.wh.gone")]
    found = unpacked(archive(*[made[number] for number in order]), tree, overlay=True)
    assert names(tree) == ["d", "d/file", "d/gone"]
    assert (tree / "d/file").read_text() == "new"
    status = (tree / "d/gone").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert found.whiteouts == ("d/file", "d/gone")
    assert found.implied == ("d",)
    assert (tree / "d").lstat().st_mtime_ns == NOW * 10**9


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_a_directory_under_a_whiteouts_name_is_a_new_one(order: tuple[int, ...], tree: Path) -> None:
    made = [member(".wh.d"), member("d/new")]
    found = unpacked(archive(*[made[number] for number in order]), tree, overlay=True)
    assert names(tree) == ["d", "d/new"]
    assert os.getxattr(tree / "d", "user.overlay.opaque") == b"y"
    assert (found.whiteouts, found.opaque) == (("d",), ("d",))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_opaque_hides_what_is_below_alone(order: tuple[int, ...], tree: Path) -> None:
    made = [directory("d"), member("d/.wh..wh..opq"), member("d/f")]
    found = unpacked(archive(*[made[number] for number in order]), tree, overlay=True)
    assert names(tree) == ["d", "d/f"]
    assert os.getxattr(tree / "d", "user.overlay.opaque") == b"y"
    assert (found.whiteouts, found.opaque, found.implied) == ((), ("d",), ())


def test_the_root_directory_may_be_opaque(tree: Path) -> None:
    found = unpacked(archive(member(".wh..wh..opq"), member("f")), tree, overlay=True)
    assert os.getxattr(tree, "user.overlay.opaque") == b"y"
    assert found.opaque == ("",)


def test_without_overlay_hidden_things_are_only_reported(tree: Path) -> None:
    made = [member("d/.wh.gone"), member("d/e/.wh..wh..opq"), member(".wh.new"), member("new/f")]
    found = unpacked(archive(*made), tree)
    assert names(tree) == ["d", "d/e", "new", "new/f"]
    assert os.listxattr(tree / "d/e") == []
    assert (found.whiteouts, found.opaque) == (("d/gone", "new"), ("d/e", "new"))


def test_what_aufs_keeps_is_ignored(tree: Path) -> None:
    made = [member(".wh..wh.aufs"), directory(".wh..wh.plnk"), member(".wh..wh.plnk/12.34"), member("f")]
    found = unpacked(archive(*made), tree, overlay=True)
    assert names(tree) == ["f"]
    assert found.dropped == {"member in a directory with a reserved name": 1}


def test_marks_in_what_is_no_directory_any_more_mean_nothing(tree: Path) -> None:
    made = [member("d/.wh.gone"), member("d/.wh..wh..opq"), member("d", content=b"a file")]
    found = unpacked(archive(*made), tree, overlay=True)
    assert names(tree) == ["d"]
    assert (found.whiteouts, found.opaque, found.implied) == ((), (), ())


# Members of one name.

KINDS = {
    "file": [member("x", content=b"file")],
    "directory": [directory("x"), directory("x/y"), member("x/y/z", mode=0)],
    "link": [directory("t"), link("x", "t")],
    "dangling": [link("x", "nowhere")],
    "hard link": [member("t", content=b"t"), hard_link("x", "t")],
    "fifo": [member("x", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize(("first", "second"), list(permutations(KINDS, 2)))
def test_the_last_of_one_name_stays(first: str, second: str, tmp_path: Path) -> None:
    later = archive(*KINDS[second])
    unpacked(later, tmp_path / "alone")
    unpacked(archive(*KINDS[first], *KINDS[second]), tmp_path / "both")
    alone = {row[0]: row for row in rows(tmp_path / "alone")}
    both = {row[0]: row for row in rows(tmp_path / "both")}
    assert both[b"x"] == alone[b"x"]
    assert {name for name in both if name.startswith(b"x")} == {
        name for name in alone if name.startswith(b"x")
    }


def test_a_file_that_is_replaced_keeps_its_other_names(tree: Path) -> None:
    made = [
        member("a", content=b"old"),
        hard_link("b", "a"),
        member("a", content=b"new"),
        hard_link("a", "a"),
    ]
    unpacked(archive(*made), tree)
    assert [(tree / name).read_text() for name in "ab"] == ["new", "old"]


def test_a_directory_again_keeps_what_is_in_it(tree: Path) -> None:
    made = [directory("d", mode=0o700), member("d/f"), directory("d", mode=0o711, mtime=5)]
    unpacked(archive(*made), tree)
    assert names(tree) == ["d", "d/f"]
    assert (tree / "d").lstat().st_mode & 0o7777 == 0o711
    assert (tree / "d").lstat().st_mtime == 5


# What leads out.


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Return a directory beside the tree that must stay as it is."""
    beside = tmp_path / "outside"
    (beside / "d").mkdir(parents=True)
    (beside / "secret").write_text("secret")
    before = rows(beside), names(tmp_path)
    yield beside
    after = rows(beside), [name for name in names(tmp_path) if not name.startswith("tree")]
    assert after == before


REFUSED = {
    "..": [member("../outside/f")],
    ".. behind a directory": [directory("a"), member("a/../../outside/f")],
    ".. alone": [directory("..")],
    "hard link ..": [hard_link("h", "../outside/secret")],
    "hard link to a directory": [directory("d"), hard_link("h", "d")],
    "hard link to the root": [hard_link("h", "/")],
    "link to itself": [link("l", "l"), member("l/f")],
    "circle": [link("a", "b"), link("b", "a/x"), member("a/f")],
    "long chain": [directory("0"), *[link(str(number + 1), str(number)) for number in range(41)], member("41/f")],
    "file as a directory": [member("f"), member("f/g")],
    "link to a file as a directory": [member("f"), link("l", "f"), member("l/g")],
    "root as a file": [member("/")],
    "root as a link": [link("./", "../outside")],
    "no name": [member("")],
    "whiteout of nothing": [member(".wh.")],
    "whiteout of .": [member("d/.wh..")],
    "whiteout of ..": [member("d/.wh...")],
    "whiteout ..": [member("../.wh.outside")],
    "long name": [member("x" * 256)],
    "long path": [member("/".join(["x" * 200] * 21))],
    "deep path": [member("x/" * 257 + "f")],
    "long link": [link("l", "x" * 5000)],
    "link to nothing": [link("l", "")],
    "NUL": [member("f", pax_headers={"path": "a\0b"})],
    "hard link with NUL": [member("a"), member("f", tarfile.LNKTYPE, pax_headers={"linkpath": "a\0b"})],
}  # fmt: skip


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED.keys())
def test_what_leads_out_or_nowhere_is_refused(
    made: list[tuple[tarfile.TarInfo, bytes]], tree: Path, outside: Path
) -> None:
    with pytest.raises(ImageError, match=r"can't unpack layer 1: ") as caught:
        unpacked(archive(*made), tree, overlay=True)
    assert "damaged" in caught.value.hint
    remove_tree(tree)
    assert outside.exists()


CLAMPED = {
    "absolute": ([member("/etc/f")], "etc/f"),
    "absolute, with more slashes": ([member("//etc//./f")], "etc/f"),
    "absolute link": ([directory("etc"), link("l", "/etc"), member("l/f")], "etc/f"),
    "link up": ([link("l", "../../.."), member("l/outside/f")], "outside/f"),
    "link up, deeper": ([directory("a/b"), link("a/b/l", "../../../../outside"), member("a/b/l/f")], "outside/f"),
    "links upon links": (
        [link("a", "b/.."), link("b", "c"), directory("c"), link("c/d", "/a/../.."), member("b/d/outside/f")],
        "outside/f",
    ),
    "hard link beyond a link": ([member("outside/f"), link("l", "../"), hard_link("h", "l/outside/f")], "h"),
    "40 links": ([directory("0"), *[link(str(number + 1), str(number)) for number in range(40)], member("40/f")], "0/f"),
    "dangling link": ([link("l", "/later"), member("l/f")], "later/f"),
}  # fmt: skip


@pytest.mark.parametrize(("made", "found"), CLAMPED.values(), ids=CLAMPED.keys())
def test_links_lead_where_they_would_in_the_image(
    made: list[tuple[tarfile.TarInfo, bytes]], found: str, tree: Path, outside: Path
) -> None:
    unpacked(archive(*made), tree)
    assert (tree / found).is_file()
    for info, _ in made:
        if info.issym():
            assert target_of(tree / info.name) == info.linkname
    assert outside.exists()


def test_files_are_not_written_through_links(tree: Path, outside: Path) -> None:
    target = str(outside / "secret")
    made = [link("f", target), member("f", content=b"x"), link("g", target), hard_link("h", "g"), member("g")]
    made += [link("w", target), member(".wh.w"), link("d", str(outside)), directory("d", mode=0o777)]
    made += [link("p", target), member("p", tarfile.FIFOTYPE, mode=0o777)]
    unpacked(archive(*made), tree, overlay=True)
    assert (tree / "f").read_text() == "x"
    assert target_of(tree / "h") == target
    assert not (tree / "d").is_symlink()


def test_a_link_that_is_replaced_leads_nowhere_any_more(tree: Path) -> None:
    made = [directory("a"), directory("b"), link("l", "m"), link("m", "a"), member("l/1")]
    made += [link("m", "b"), member("l/2"), directory("l"), member("l/3")]
    unpacked(archive(*made), tree)
    assert names(tree) == ["a", "a/1", "b", "b/2", "l", "l/3", "m"]


# What is no tar, or a wrong one.

FILE = block(b"f", b"0", b"00000001000", bytes(512))
SPARSE = b"GNU.sparse.major", b"1"
END = bytes(1024)


def sparse_1_0(listed: bytes, size: int, data: bytes = b"x" * 512) -> bytes:
    """Return a sparse file with a list of what it has."""
    listed = listed.ljust(512, b"\0")
    records = (
        record(*SPARSE) + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"%d" % size)
    )
    return pax(records) + block(b"f", b"0", b"%011o" % (len(listed) + len(data)), listed + data)


WRONG = {
    "nothing": b"",
    "text": b"this is not a tar" * 100,
    "a zip": b"PK\3\4" + bytes(2000),
    "short": FILE[:300],
    "file cut off": FILE[:700],
    "file cut off at its beginning": FILE[:512],
    "header cut off": FILE + FILE[:300],
    "damage in the middle": FILE + b"x" + FILE[1:] + END,
    "text after a member": FILE + b"text" * 1000,
    "negative size": block(b"f", b"0", b"\xff" * 12) + END,
    "very negative size": block(b"f", b"0", b"\xff\xff" + bytes(10)) + END,
    "negative size of a long name": block(b"f", b"L", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\0") + FILE + END,
    "negative size in pax": pax(record(b"size", b"-512")) + FILE + END,
    "negative size in pax, twice": pax(record(b"size", b"-1000000")) + FILE + FILE + END,
    "huge size": block(b"f", b"0", b"\x80" + b"\xff" * 11) + END,
    "size that is no number": block(b"f", b"0", b"many") + END,
    "size in pax that is longer than the archive": pax(record(b"size", b"9" * 4000)) + FILE + END,
    "size of so many digits that none are read": pax(record(b"size", b"9" * 6000)) + FILE + END,
    "header alone": pax(record(b"path", b"x")),
    "header before the end": pax(record(b"path", b"x")) + END,
    "long name alone": block(b"n", b"L", b"00000001000", b"x" * 512),
    "header without length": pax(b"path=x\n") + FILE + END,
    "header with a wrong length": pax(b"999 path=x\n") + FILE + END,
    "header with length 0": pax(b"0 path=x\n") + FILE + END,
    "header of digits": pax(b"1" * 100_000) + FILE + END,
    "header larger than the limit": pax(record(b"comment", b"x" * 2_000_000)) + FILE + END,
    "header that says it is huge": block(b"p", b"x", b"77777777777") + FILE + END,
    "long name that says it is huge": block(b"p", b"L", b"\x80" + bytes(4) + b"\x7f" + bytes(6)) + FILE + END,
    "long names upon long names": block(b"n", b"L", b"00000000002", b"x\0") * 5000 + FILE + END,
    "global headers upon global headers": pax(record(b"comment", b"x"), b"g") * 5000 + FILE + END,
    "sparse, list of no numbers": sparse_1_0(b"x\ny\n", 512),
    "sparse, list without end": sparse_1_0(b"1" * 512, 512),
    "sparse, list longer than the file": sparse_1_0(b"1000000000000\n0\n512\n", 512),
    "sparse, negative": sparse_1_0(b"1\n-512\n512\n", 512),
    "sparse, negative number": sparse_1_0(b"-1\n", 512),
    "sparse, negative size": sparse_1_0(b"2\n0\n-1\n0\n513\n", 512),
    "sparse, overlapping": sparse_1_0(b"2\n0\n300\n200\n212\n", 1000),
    "sparse, beyond the end": sparse_1_0(b"1\n1000\n512\n", 1000),
    "sparse, more than there is": sparse_1_0(b"1\n0\n5120\n", 5120),
    "sparse, more than the limit": sparse_1_0(b"1\n0\n512\n", 1 << 60),
    "sparse, more than can be": sparse_1_0(b"1\n0\n512\n", 1 << 70),
    "sparse 0.1, no numbers": pax(record(b"GNU.sparse.map", b"a,b") + record(b"GNU.sparse.size", b"5")) + FILE + END,
    "sparse 0.1, no size": pax(record(b"GNU.sparse.map", b"0,512") + record(b"GNU.sparse.size", b"x")) + FILE + END,
    "sparse 0.0, no offsets": pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.numbytes", b"9")) + FILE,
    "sparse old, cut off": block(b"f", b"S", b"00000001000", b"", bytes(41 + 96) + b"\1" + b"00000001000"),
}  # fmt: skip


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_at_once(content: bytes, tree: Path, outside: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"can't unpack layer 1: "):
        unpacked(content, tree)
    assert time.monotonic() - began < 5
    remove_tree(tree)
    assert outside.exists()


def test_global_headers_do_not_pile_up(tree: Path) -> None:
    made = [pax(record(b"key%d" % number, b"x" * 1000), b"g") + FILE for number in range(20)]
    with pytest.raises(ImageError, match="more than 10000 bytes in global headers"):
        unpacked(b"".join(made), tree, replace(LIMITS, header=10_000))


@pytest.mark.parametrize("offset", [0, 257, 500])
def test_an_archive_may_end_after_a_member_or_with_anything_behind_it(offset: int, tmp_path: Path) -> None:
    unpacked(FILE, tmp_path / "tree")
    content = FILE + END + bytes(offset) + b"garbage"
    found = unpacked(content, tmp_path / "tree 2")
    assert found.diff_id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert names(tmp_path / "tree") == names(tmp_path / "tree 2") == ["f"]


def test_names_that_can_not_be_shown_are_shown_otherwise(tree: Path) -> None:
    with pytest.raises(ImageError) as caught:
        unpacked(archive(member("../\x1b[2J\n" + "x" * 1000)), tree)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


LIMITED = {
    "--max-size=GIB": (replace(LIMITS, size=20_000), [member("f", content=bytes(20_000))]),
    "--max-members=N": (replace(LIMITS, members=3), [member(name) for name in "abcd"]),
    "no image needs as much": (
        replace(LIMITS, header=9_000),
        [member("f", pax_headers={"comment": "x" * 9_000})],
    ),
}


@pytest.mark.parametrize("option", LIMITED)
def test_limits_are_named_with_what_raises_them(option: str, tmp_path: Path) -> None:
    limits, made = LIMITED[option]
    number = next(value for value in vars(limits).values() if value not in vars(LIMITS).values())
    with pytest.raises(ImageError, match=f"more than {number} ") as caught:
        unpacked(archive(*made), tmp_path / "1", limits)
    assert option in caught.value.hint
    unpacked(archive(*made), tmp_path / "2", LIMITS)


def test_a_bomb_is_stopped_before_it_is_unpacked(tree: Path) -> None:
    bomb = gzip.compress(block(b"f", b"0", b"70000000000") + bytes(100 << 20))
    with pytest.raises(ImageError, match="more than 5000000 bytes, uncompressed"):
        unpacked(bomb, tree, replace(LIMITS, size=5_000_000))
    assert (tree / "f").stat().st_size < 5_000_000


def test_holes_count(tree: Path) -> None:
    with pytest.raises(ImageError, match="more than 1073741824 bytes, uncompressed"):
        unpacked(sparse_1_0(b"1\n0\n512\n", 1 << 30), tree)


def test_memory_stays_flat(tmp_path: Path) -> None:
    script = """if True:
        import io, os, sys, threading, time
        from pathlib import Path
        from chlaunch.image.unpack import Limits, unpack
        head = bytes.fromhex(sys.argv[1])
        class Source:
            parts = iter([head] + [bytes(1 << 20)] * 256)
            def read(self, size):
                return next(self.parts, b"")
        Path("tree").mkdir()
        unpack(Source(), Path("tree"), Limits(), overlay=False, shown="layer")
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
        """
    head = block(b"f", b"0", b"%011o" % (256 << 20)).hex()
    done = subprocess.run(
        [sys.executable, "-c", script, head], capture_output=True, check=False, cwd=tmp_path, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tree/f").stat().st_size == 256 << 20
    assert int(done.stdout) < 60 << 10, "KiB"


def test_what_reading_raises_is_passed_on_and_nothing_is_left_running(tree: Path) -> None:
    class Broken:
        def read(self, _size: int) -> bytes:
            raise StorageError("no more")

    tree.mkdir()
    before = threading.active_count()
    with pytest.raises(StorageError, match="no more"):
        unpack(Broken(), tree, LIMITS, overlay=False, shown="it")  # type: ignore[arg-type]
    assert threading.active_count() == before


def test_several_layers_are_unpacked_at_once(tmp_path: Path) -> None:
    made = [directory(f"d{number}", mode=0o777) for number in range(40)]
    made += [member(f"d{number % 40}/{number}", content=bytes(1000), mode=0o666) for number in range(800)]
    content = archive(*made)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    threads = [
        threading.Thread(target=unpacked, args=(content, tmp_path / str(number))) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(tmp_path / "0") == rows(tmp_path / "1") == rows(tmp_path / "2") == rows(tmp_path / "3")
    assert len(names(tmp_path / "0")) == 840
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


# Layers below.


def layers(tmp_path: Path, *made: list[tuple[tarfile.TarInfo, bytes]]) -> list[Path]:
    """Return trees of layers in overlay form, the highest first."""
    paths = [tmp_path / f"below {number}" for number in range(len(made))]
    for path, members in zip(paths, made, strict=True):
        unpacked(archive(*members), path, overlay=True)
    return paths[::-1]


def test_hard_links_to_files_below_become_copies(tmp_path: Path, tree: Path) -> None:
    low = [directory("usr"), link("lib", "usr/x/../lib"), directory("usr/x"), directory("usr/lib")]
    low += [
        member(
            "usr/lib/f",
            content=b"found",
            mode=0o755,
            pax_headers={"SCHILY.xattr.user.a": "1", "mtime": "7.5"},
        )
    ]
    low += [link("usr/lib/l", "f")]
    below = layers(tmp_path, low, [member("usr/lib/other")])
    made = [
        directory("d"),
        hard_link("d/1", "lib/f"),
        hard_link("d/2", "d/1"),
        hard_link("d/3", "/usr/lib/f"),
    ]
    made += [hard_link("d/l", "usr/lib/l"), hard_link("usr/lib/f", "usr/lib/f"), member(".wh.usr/lib")]
    found = unpacked(archive(*made[:-1]), tree, overlay=True)
    assert [name for name, _ in found.links_below] == ["d/1", "d/2", "d/3", "d/l", "usr/lib/f"]
    assert names(tree) == ["d", "usr", "usr/lib"]
    assert settle(tree, found, below)
    copy = row(tree / "d/1", tree / "d")
    assert copy[1:3] == (stat.S_IFREG | 0o755, 7_500_000_000)
    assert copy[5] == {"user.a": b"1"}
    assert (tree / "d/1").read_text() == "found"
    assert len({(tree / name).stat().st_ino for name in ("d/1", "d/2", "d/3", "usr/lib/f")}) == 1
    assert target_of(tree / "d/l") == "f"
    assert (tree / "d").lstat().st_mtime_ns == NOW * 10**9


def test_files_below_keep_their_holes(tmp_path: Path, tree: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    with (below / "f").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"island")
        file.truncate(80 << 20)
    found = unpacked(archive(hard_link("g", "f")), tree)
    settle(tree, found, [below])
    assert (tree / "g").read_bytes() == (below / "f").read_bytes()
    assert (tree / "g").stat().st_blocks < 100


HIDDEN = {
    "it is not there": [],
    "it is a directory": [directory("d/f")],
    "it has gone": [member("d/.wh.f")],
    "its directory has gone": [member(".wh.d")],
    "its directory is opaque": [member("d/.wh..wh..opq")],
    "its directory is a file": [member("d")],
    "its directory is a link into a circle": [link("d", "e"), link("e", "d")],
}


@pytest.mark.parametrize("above", HIDDEN.values(), ids=HIDDEN.keys())
def test_hard_links_to_nothing_are_refused(
    above: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path, tree: Path
) -> None:
    below = layers(tmp_path, [member("d/f")] if above else [], above)
    found = unpacked(archive(hard_link("h", "d/f")), tree)
    with pytest.raises(ImageError):
        settle(tree, found, below)


def test_hard_links_in_a_circle_lead_to_nothing(tree: Path) -> None:
    found = unpacked(archive(hard_link("a", "b"), hard_link("b", "a")), tree)
    with pytest.raises(ImageError, match="can't make a, a hard link to b"):
        settle(tree, found, [])


def test_a_hard_link_that_is_replaced_is_forgotten(tree: Path) -> None:
    made = [hard_link("a", "below"), member("a"), hard_link("d/b", "below"), member("d"), directory("d")]
    found = unpacked(archive(*made), tree)
    assert found.links_below == ()
    assert not settle(tree, found, [])


def test_a_hard_link_may_replace_what_is_hidden(tmp_path: Path, tree: Path) -> None:
    below = layers(tmp_path, [member("old", content=b"old"), member("new", content=b"new")])
    found = unpacked(
        archive(member(".wh.new"), hard_link("new", "old"), member(".wh.old")), tree, overlay=True
    )
    settle(tree, found, below)
    assert (tree / "new").read_text() == "old"
    assert stat.S_ISCHR((tree / "old").lstat().st_mode)


def test_directories_without_a_member_are_as_those_below(tmp_path: Path, tree: Path) -> None:
    below = layers(
        tmp_path, [directory("tmp", mode=0o1777, mtime=5), directory("d", mode=0o555)], [member("d/1")]
    )
    settle(below[0], Unpacked("", 0, 0, {}, (), (), (), ("d",)), below[1:])
    found = unpacked(archive(member("tmp/x"), member("d/x"), member("new/x")), tree)
    assert found.implied == ("d", "new", "tmp")
    assert settle(tree, found, below)
    modes = {name: (tree / name).lstat().st_mode & 0o7777 for name in ("tmp", "d", "new")}
    assert modes == {"tmp": 0o1777, "d": 0o755, "new": 0o755}
    assert (tree / "tmp").lstat().st_mtime == 5


def test_a_layer_of_its_own_depends_on_nothing(tmp_path: Path, tree: Path) -> None:
    found = unpacked(archive(directory("d"), member("d/f"), hard_link("d/g", "d/f")), tree)
    before = rows(tree)
    assert not settle(tree, found, [tmp_path])
    assert rows(tree) == before


# Anything at all.

BASES = [
    archive(*KINDS["directory"], *KINDS["link"], member("x/.wh.y"), form=form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
] + [
    archive(member("n" * 150, content=b"x" * 600), hard_link("h", "n" * 150), link("l" * 120, "../" * 50), form=tarfile.GNU_FORMAT),
    archive(member("ü" * 80, content=b"x" * 600, pax_headers={"SCHILY.xattr.user.a": "1", "mtime": "1.5"}), member("d/.wh..wh..opq")),
    sparse_1_0(b"2\n0\n256\n1000\n256\n", 2000) + FILE + END,
]  # fmt: skip


def edited(base: bytes, edits: list[tuple[int, int]], cut: int | None, *, checked: bool) -> bytes:
    """Change bytes of a tar, and maybe make checksums right again."""
    content = bytearray(base)
    for place, value in edits:
        content[place % len(content)] = value
    if checked:
        for start in range(0, len(content) - 511, 512):
            if content[start + 257 : start + 262] == b"ustar":
                content[start + 148 : start + 156] = b" " * 8
                content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return bytes(content if cut is None else content[: cut % len(content)])


@settings(PLAIN, max_examples=80 * MORE)
@given(
    base=some.sampled_from(BASES),
    edits=some.lists(some.tuples(some.integers(0, 6000), some.integers(0, 255)), max_size=8),
    checked=some.booleans(),
    cut=some.none() | some.integers(0, 6000),
)
def test_changed_archives_do_no_harm(
    base: bytes,
    edits: list[tuple[int, int]],
    cut: int | None,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    checked: bool,
) -> None:
    harmless(edited(base, edits, cut, checked=checked), tmp_path_factory.mktemp("changed"))


def harmless(content: bytes, top: Path) -> Unpacked | None:
    """Unpack, or not, and see that nothing else was changed, and that it can be removed."""
    beside = top / "outside"
    (beside / "d").mkdir(parents=True)
    (beside / "f").write_text("f")
    before = rows(top)
    found = None
    try:
        found = unpacked(content, top / "tree", replace(LIMITS, size=1 << 24), overlay=True)
        assert rows(top / "tree") is not None
        settle(top / "tree", found, [])
    except ImageError as error:
        assert error.message.isprintable()  # noqa: PT017  there may be none
    kept = rows(top / "tree")
    remove_tree(top / "tree")
    os.utime(top, ns=(0, 0))
    assert rows(top) == before
    assert all(not (status[1] & 0o6000) for status in kept)
    remove_tree(top)
    return found


NAME = some.sampled_from(["a", "b", "..", ".", "", "/", ".wh.a", ".wh..wh..opq", ".wh..."])
PATHS = some.lists(NAME, min_size=1, max_size=4).map("/".join)
KIND = some.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)
MEMBERS = some.lists(some.tuples(PATHS, KIND, PATHS | some.just("../outside/d")), max_size=12)


@settings(PLAIN, max_examples=100 * MORE)
@given(made=MEMBERS)
def test_any_members_do_no_harm(
    made: list[tuple[str, bytes, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = archive(*[member(name, kind, linkname=target, mode=0o7777) for name, kind, target in made])
    harmless(content, tmp_path_factory.mktemp("members"))


MILD = some.lists(some.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
MILD_MEMBERS = some.lists(some.tuples(MILD, KIND, MILD), max_size=10, unique_by=lambda made: made[0])


@settings(PLAIN, max_examples=40 * MORE)
@given(made=MILD_MEMBERS)
def test_what_gnu_tar_takes_is_made_alike(
    made: list[tuple[str, bytes, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("mild")
    (top / "theirs").mkdir()
    # All of one mode: tar gives a directory's, at the end, to a file too that took its place by way of a link.
    content = archive(*[member(name, kind, linkname=target, mode=0o755) for name, kind, target in made])
    done = subprocess.run(
        ["tar", "-C", top / "theirs", "--delay-directory-restore", "-xpf", "-"],
        input=content,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        found = unpacked(content, top / "tree")
        assert found.links_below == ()
        implied = {os.fsencode(name) for name in found.implied}
        ours = [row for row in rows(top / "tree") if row[0] not in implied]
        theirs = [row for row in rows(top / "theirs") if row[0] not in implied]
        assert ours == theirs
    remove_tree(top)


# Removing.


def test_trees_without_rights_are_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "outside").write_text("kept")
    script = """if True:
        import os
        from pathlib import Path
        from chlaunch.image.removal import remove_tree
        for path in ("t/a/b/c", "t/d"):
            os.makedirs(path)
        Path("t/a/b/f").write_text("f")
        os.symlink("../outside", "t/l")
        os.symlink("..", "t/a/up")
        os.mkfifo("t/d/fifo")
        for path, mode in (("t/a/b/c", 0), ("t/a/b", 0o500), ("t/a", 0o100), ("t/d", 0o600), ("t", 0)):
            os.chmod(path, mode)
        remove_tree(Path("t"))
        assert not os.path.lexists("t")
        remove_tree(Path("t"))
        """
    as_nobody(script, tmp_path)
    assert names(tmp_path) == ["outside"]


def test_trees_of_any_depth_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "t"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    remove_tree(top)
    assert names(tmp_path) == []


def test_what_is_mounted_in_a_tree_is_not_entered(tmp_path: Path) -> None:
    for name in ("t/m", "t/other", "beside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "beside/f").write_text("kept")
    script = """if True:
        from pathlib import Path
        from chlaunch.image.removal import remove_tree
        from chlaunch.errors import StorageError
        try:
            remove_tree(Path("t"))
        except StorageError as error:
            print(error.message)
        """
    said = in_namespace(f"mount --bind beside t/m; exec $0 -c '{script}'", tmp_path, b"")
    assert said == "can't remove t: m: Device or resource busy\n"
    assert (tmp_path / "beside/f").read_text() == "kept"


def test_links_and_files_are_removed_themselves(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "f").write_text("")
    remove_tree(tmp_path / "l")
    remove_tree(tmp_path / "f")
    assert names(tmp_path) == ["d"]
