"""ch-convert: every format to every other, what is kept on the way, and what is left when it fails."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.cli.convert import convert_image
from chlaunch.errors import ChlaunchError, ImageError, UsageError
from chlaunch.image import formats
from chlaunch.image.metadata import command_text, read_metadata
from chlaunch.rootfs import Rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = {
    "dir": "d",
    "tar": "t.tar.zst",
    "squash": "s.sqfs",
    "oci": "o",
    "oci-archive": "o.tar",
    "docker-archive": "a.tar",
}
WRITTEN = (*NAMES, "ch-image", "podman")
LAYERED = ("oci", "oci-archive", "docker-archive", "ch-image", "podman", "docker")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
MOMENT = 1_700_000_000
ODD = (
    "with space",
    "with\nline end",
    "-dash",
    "*?[",
    "'\"\\",
    os.fsdecode(b"not-\xff-utf8"),
    "ä" * 100,
    ".hidden",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return an environment with storage of its own, also for podman, which `docker` calls as well."""
    top = tmp_path_factory.mktemp("env")
    with tempfile.TemporaryDirectory() as short:  # podman takes 50 characters
        config = top / "storage.conf"
        config.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{top}/podman"\nrunroot = "{short}/run"\n')
        (top / "bin").mkdir()
        (top / "bin/docker").write_text('#!/bin/sh\nexec podman "$@"\n')  # as Debian's podman-docker has it
        (top / "bin/docker").chmod(0o755)
        (top / "tmp").mkdir()
        yield {
            "PATH": f"{top}/bin:{os.environ['PATH']}",
            "HOME": str(top),
            "CONTAINERS_STORAGE_CONF": str(config),
            "CH_IMAGE_STORAGE": str(top / "storage"),
            "TMPDIR": str(top / "tmp"),
        }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image with all kinds of files that are kept."""
    top = tmp_path_factory.mktemp("tree") / "image"
    for name in ("bin", "dev", "etc", "mnt", "proc", "sys", "tmp", "usr/empty", "ch", "odd"):
        (top / name).mkdir(parents=True)
    (top / "tmp").chmod(0o1777)
    shutil.copy("/bin/true", top / "bin/sh")  # which tells the architecture
    for name in ("etc/hosts", "etc/resolv.conf"):
        (top / name).touch()
    for number, name in enumerate(ODD):
        (top / "odd" / name).write_text(name, errors="surrogateescape")
        (top / "odd" / name).chmod((0o644, 0o755, 0o600, 0o640, 0o777)[number % 5])
    (top / "usr/one").write_text("linked")
    os.link(top / "usr/one", top / "usr/two")
    os.link(top / "usr/one", top / "bin/three")
    os.setxattr(top / "usr/one", "user.note", b"\x00\xff")
    with (top / "usr/sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    for name, target in {
        "absolute": "/etc/hosts",
        "up": "../../..",
        "nowhere": "gone",
        "self": "self",
    }.items():
        (top / "usr" / name).symlink_to(target)
    (top / "ch/environment").write_text("A=1\n")
    (top / "ch/cmd").write_bytes(command_text(["two words", ""]))
    for path in top.rglob("*"):
        os.utime(path, (MOMENT, MOMENT), follow_symlinks=False)
    return top


def looks(top: Path, *, xattrs: bool = True) -> dict[str, object]:
    """Return what there is to know of a tree, without /ch."""
    found: dict[str, object] = {}
    first: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        status = path.lstat()
        if name.split("/", maxsplit=1)[0] == "ch":
            continue
        if stat.S_ISLNK(status.st_mode):
            found[name] = path.readlink()
        elif stat.S_ISDIR(status.st_mode):
            found[name] = oct(status.st_mode)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            linked = first.setdefault(status.st_ino, name)
            notes = {key: os.getxattr(path, key) for key in os.listxattr(path)} if xattrs else None
            found[name] = (oct(status.st_mode), int(status.st_mtime), content, linked, notes)
    return found


def open_to_all(path: Path) -> None:
    """Let other users reach what is there."""
    for above in (path, *path.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)


def names(directory: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


def place(form: str, work: Path) -> str:
    """Return the word for an image of that format."""
    return str(work / NAMES[form]) if form in NAMES else f"{form}-{work.name.lower().strip('_')}:1"


def run(environment: dict[str, str], *words: object) -> None:
    assert convert_image([str(word) for word in words], environment) == 0


@pytest.fixture(scope="module")
def made(tree: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the tree in all formats."""
    work = tmp_path_factory.mktemp("made")
    words = {form: place(form, work) for form in WRITTEN}
    for form, word in words.items():
        run(environment, "-q", "-i", "dir", "-o", form, tree, word)
    return words


@pytest.mark.parametrize("ends", [*itertools.product(WRITTEN, WRITTEN), ("tar", "docker")], ids="-to-".join)
def test_round_trips(
    made: dict[str, str], tree: Path, environment: dict[str, str], tmp_path: Path, ends: tuple[str, str]
) -> None:
    """From each format to each, and on to a directory."""
    source, target = ends
    if source == target == "ch-image":
        with pytest.raises(UsageError, match="both are in"):
            run(environment, made[source], place(target, tmp_path))
        return
    word = place(target, tmp_path)
    run(environment, "-q", "-i", source, "-o", target, made[source], word)
    out = tmp_path / "out"
    run(environment, "-q", "-i", target, "-o", "dir", word, out)
    assert looks(out) == looks(tree)
    if not {source, target} & set(LAYERED):
        assert (out / "usr/sparse").stat().st_blocks * 512 < 1 << 20
    for image in (tree, out):
        said = read_metadata(Rootfs(str(image)), "test")
        assert (said.environment, said.cmd) == (("A=1",), ("two words", ""))
    # Nothing temporary is left anywhere.
    assert names(Path(environment["TMPDIR"])) == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_others_read_what_we_write(made: dict[str, str], tmp_path: Path) -> None:
    for form, tag in (("oci", ":latest"), ("oci-archive", ":latest"), ("docker-archive", "")):
        subprocess.run(
            ["skopeo", "copy", "-q", f"{form}:{made[form]}{tag}", f"dir:{tmp_path}/{form}"], check=True
        )
        config = json.loads(
            subprocess.run(
                ["skopeo", "inspect", "--config", f"{form}:{made[form]}{tag}"],
                check=True,
                capture_output=True,
            ).stdout
        )
        assert config["architecture"] == {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        assert config["config"]["Cmd"] == ["two words", ""]


def test_the_same_tree_gives_the_same_bytes(tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-a", tree, copied], check=True)
    for form in ("tar", "oci-archive", "docker-archive"):
        digests = set()
        for number, source in enumerate((tree, copied)):
            word = tmp_path / f"{number}{NAMES[form]}"
            run(environment, "-q", "-o", form, source, word)
            digests.add(hashlib.sha256(word.read_bytes()).digest())
        assert len(digests) == 1, form


def test_owners_and_set_id_bits(tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """In files, all belongs to root; in directories to the user, and nothing has a set-id bit."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", tree, source], check=True)
    os.chown(source / "usr/one", 1234, 1234)
    (source / "usr/one").chmod(0o4755)
    run(environment, "-q", source, tmp_path / "x.tar")
    run(environment, "-q", source, tmp_path / "x.sqfs")
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert {(member.uid, member.gid) for member in archive} == {(0, 0)}
    listed = subprocess.run(["unsquashfs", "-lln", tmp_path / "x.sqfs"], check=True, capture_output=True)
    assert {line.split()[1] for line in listed.stdout.splitlines() if line.startswith((b"d", b"-"))} == {
        b"0/0"
    }
    for name in ("x.tar", "x.sqfs", "source"):
        run(environment, "-q", tmp_path / name, tmp_path / "out")
        status = (tmp_path / "out/usr/one").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, os.geteuid()), name


def test_without_attributes(
    made: dict[str, str], tree: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    ways = [("dir", form) for form in (*NAMES, "ch-image")]
    for number, (source, form) in enumerate([*ways, ("tar", "ch-image"), ("tar", "dir"), ("squash", "dir")]):
        word = str(tmp_path / f"{number}-{NAMES[form]}") if form in NAMES else f"plain:{number}"
        run(environment, "-q", "--no-xattrs", "-o", form, made[source], word)
        run(environment, "-q", "-i", form, word, tmp_path / "out")
        assert os.listxattr(tmp_path / "out/usr/one") == [], (source, form)
        assert looks(tmp_path / "out", xattrs=False) == looks(tree, xattrs=False), (source, form)
    run(environment, "-q", "--no-xattrs", made["oci"], tmp_path / "out")
    assert os.listxattr(tmp_path / "out/usr/one") == []


def test_sif(made: dict[str, str], tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """A SIF file is a header, a table, and the SquashFS that it says (sif's pkg/sif)."""
    squash = Path(made["squash"]).read_bytes()
    header = bytes(32) + b"SIF_MAGIC\0" + bytes(46) + struct.pack("<qq", 1, 128)
    row = struct.pack("<iB12xq176xii", 0x4004, 1, 4096, 1, 2)
    (tmp_path / "x.sif").write_bytes((header.ljust(128, b"\0") + row).ljust(4096, b"\0") + squash)
    run(environment, "-q", tmp_path / "x.sif", tmp_path / "out")
    assert looks(tmp_path / "out") == looks(tree)
    with pytest.raises(UsageError, match="can't write sif"):
        run(environment, tmp_path / "out", tmp_path / "y.sif")
    (tmp_path / "bad.sqfs").write_bytes(b"not one")
    with pytest.raises(ImageError, match="no SquashFS in it"):
        run(environment, "-q", tmp_path / "bad.sqfs", tmp_path / "out")
    (tmp_path / "bad.sqfs").write_bytes(squash[: len(squash) // 2])
    with pytest.raises(ImageError, match="unsquashfs failed"):
        run(environment, "-q", tmp_path / "bad.sqfs", tmp_path / "out")
    assert looks(tmp_path / "out") == looks(tree)


@pytest.mark.parametrize(("top", "found"), [("image-1.0", "bin"), ("usr", "usr"), ("", "bin")])
def test_one_top_directory_or_many(environment: dict[str, str], tmp_path: Path, top: str, found: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("bin/sh", "etc/x") if top != "usr" else ("lib/x",):
            archive.addfile(tarfile.TarInfo(f"{top}/{name}".lstrip("/")))
    run(environment, "-q", tmp_path / "x.tar", tmp_path / "out")
    assert (tmp_path / "out" / found).is_dir()
    assert {"bin", "dev", "etc", "mnt", "proc", "sys", "tmp", "usr"} <= set(names(tmp_path / "out"))
    assert (tmp_path / "out/etc/resolv.conf").read_bytes() == b""


def test_nothing_is_written_through_links(environment: dict[str, str], tmp_path: Path) -> None:
    """What an image lacks is not made elsewhere, whatever its directories are links to."""
    (tmp_path / "outside").mkdir()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("etc", "ch", "dev"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("usr/x"))
    run(environment, "-q", "-a", "amd64", "-o", "oci", tmp_path / "x.tar", tmp_path / "oci")
    for source in ("x.tar", "oci"):
        run(environment, "-q", "-a", "yolo", tmp_path / source, tmp_path / "out")
        assert names(tmp_path / "outside") == []


def test_what_may_not_be_overwritten(
    made: dict[str, str], tree: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "file").write_text("mine")
    (tmp_path / "link").symlink_to(home)
    before = (home / "file").stat()
    for target, words in {
        home: "does not look like an image",
        tmp_path / "link": "exists, and is no directory",
        home / "file": "exists, and is no directory",
        tmp_path / "no/where": "no such directory",
    }.items():
        with pytest.raises(ImageError, match=words):
            run(environment, "-q", "-o", "dir", made["tar"], target)
    for target in (home, tmp_path / "link"):
        with pytest.raises(ImageError, match="exists, and is no file"):
            run(environment, "-q", "-o", "squash", tree, target)
    with pytest.raises(ImageError, match="does not look like an image"):
        run(environment, "-q", "-o", "oci", tree, home)
    with pytest.raises(UsageError, match="within the input"):
        run(environment, "-q", tree, tree / "x.sqfs")
    for form in (*WRITTEN, "docker"):
        word = made.get(form, made["podman"])
        with pytest.raises(ImageError, match="exists, not deleting per --no-clobber"):
            run(environment, "-q", "--no-clobber", "-o", form, tree, word)
    assert (home / "file").stat() == before
    assert names(tmp_path / "home") == ["file"]


def test_an_image_in_a_directory_is_replaced(tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "usr").mkdir(parents=True)
    (out / "bin").symlink_to("usr/bin")
    (out / "dev").mkdir()
    (out / "old").touch()
    run(environment, "-q", tree, out)
    assert looks(out) == looks(tree)
    assert names(tmp_path) == ["out"]


def test_dry_run(
    made: dict[str, str], environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(environment, "-n", made["dir"], tmp_path / "x.tar.gz")
    assert capsys.readouterr().err.splitlines() == [
        f"input:   dir: {made['dir']}",
        f"output:  tar: {tmp_path}/x.tar.gz",
    ]
    assert names(tmp_path) == []


def test_events_as_json(
    made: dict[str, str], environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is known beforehand is reached exactly, never exceeded."""
    run(environment, "--json", made["oci"], tmp_path / "x.tar")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "source": {"format": "oci", "path": made["oci"]},
        "target": {"format": "tar", "path": str(tmp_path / "x.tar")},
    }
    rows = [json.loads(line) for line in printed.err.splitlines()]
    ends = [row for row in rows if row["event"] == "end" and row["total"]]
    assert ends
    assert all(row["bytes"] == row["total"] for row in ends)


COMPRESSED = {
    "x.tar": b"",
    "x.tar.gz": b"\x1f\x8b",
    "x.tgz": b"\x1f\x8b",
    "x.tar.xz": b"\xfd7zXZ",
    "x.txz": b"\xfd7zXZ",
    "x.tar.bz2": b"BZh",
    "x.tar.zst": b"\x28\xb5\x2f\xfd",
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressions(tree: Path, environment: dict[str, str], tmp_path: Path, name: str) -> None:
    run(environment, "-q", tree, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(COMPRESSED[name])
    subprocess.run(["tar", "-tf", tmp_path / name], check=True, stdout=subprocess.DEVNULL)
    run(environment, "-q", tmp_path / name, tmp_path / "out")
    assert looks(tmp_path / "out") == looks(tree)


def test_formats_by_name(made: dict[str, str], environment: dict[str, str], tmp_path: Path) -> None:
    for word, name in {
        "x.sqfs": "squash",
        "a/b.squash": "squash",
        "/a/b.squashfs": "squash",
        "x.tar": "tar",
        "./x.tgz": "tar",
        "x.tar.gz": "tar",
        "x.tar.Z": "tar",
        "/x": "dir",
        "./x:1": "dir",
        "../x": "dir",
        "x": "ch-image",
        "host.example/x/y:1": "ch-image",
        "x.sif": "sif",
    }.items():
        assert formats.input_place(word, "", environment).format.name == name, word
    for form, name in {
        "oci": "oci",
        "oci-archive": "oci-archive",
        "docker-archive": "oci-archive",
        "tar": "tar",
        "dir": "dir",
    }.items():
        assert formats.input_place(made[form], "", environment).format.name == name
    place = formats.output_place(f"{tmp_path}/x.tar:host:5000/a/b:1", "docker-archive", environment)
    assert (place.path, place.tag) == (tmp_path / "x.tar", "host:5000/a/b:1")
    for words in (("x", "gif"), ("", "")):
        with pytest.raises(UsageError):
            formats.input_place(*words, environment)
    with pytest.raises(ImageError, match="podman is not installed"):
        formats.input_place("x", "podman", {"PATH": str(tmp_path)})


def test_what_is_missing(environment: dict[str, str], tree: Path, tmp_path: Path) -> None:
    for words, message in {
        ("nowhere", "./x.sqfs"): "image not in storage: nowhere",
        ("./nowhere", "./x.sqfs"): "not found: ./nowhere",
        (str(tree), f"{tmp_path}/x.tar.lz9"): "no compression is known",
        ("-i", "podman", "nowhere:1", f"{tmp_path}/x.tar"): "podman failed: .*nowhere",
        ("--tmp", f"{tmp_path}/no", str(tree), f"{tmp_path}/x.tar"): "can't write to",
    }.items():
        with pytest.raises(ChlaunchError, match=message):
            run(environment, "-q", *words)
    for words in ((), ("x",), ("x", "y", "z"), ("--nonsense", "x", "y")):
        with pytest.raises(UsageError):
            run(environment, *words)


def test_a_file_that_can_not_be_read(tree: Path, tmp_path: Path) -> None:
    """Mksquashfs would make it empty, and say so by the way."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", tree, source], check=True)
    (source / "usr/secret").write_text("x")
    (source / "usr/secret").chmod(0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    open_to_all(tmp_path)
    words = [
        sys.executable,
        "-c",
        "from chlaunch.cli.convert import main; main()",
        "--tmp",
        str(tmp_path / "out"),
        str(source),
    ]
    for name in ("x.sqfs", "x.tar", "x"):
        done = subprocess.run(
            [*NOBODY, *words, str(tmp_path / "out" / name)],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.returncode == 1, name
        assert "secret" in done.stderr
        assert "error: " in done.stderr
    assert names(tmp_path / "out") == []


def test_killed_midway(tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """What was there before stays, whole."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", tree, source], check=True)
    (source / "usr/large").write_bytes(os.urandom(64 << 20))
    for name in ("x.sqfs", "x.tar.xz", "out"):
        target = tmp_path / name
        run(environment, "-q", tree, target)
        before = looks(target) if name == "out" else target.read_bytes()
        process = subprocess.Popen(
            [sys.executable, "-c", "from chlaunch.cli.convert import main; main()", "-q", source, target],
            env={**os.environ, **environment},
        )
        while not list(tmp_path.glob(f".{name}.*")):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert (looks(target) if name == "out" else target.read_bytes()) == before, name


def test_ended_by_a_signal(tree: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Asked to end, it leaves nothing behind, and no program goes on."""
    (tmp_path / "source").mkdir()
    subprocess.run(["cp", "-a", f"{tree}/.", tmp_path / "source"], check=True)
    (tmp_path / "source/usr/large").write_bytes(os.urandom(64 << 20))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from chlaunch.cli.convert import main; main()",
            "-q",
            tmp_path / "source",
            tmp_path / "x.tar.gz",
        ],
        env={**os.environ, **environment},
    )
    while not any(path.stat().st_size for path in tmp_path.glob(".x.tar.gz.*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert names(tmp_path) == ["source"]


def test_as_an_ordinary_user(made: dict[str, str], tree: Path, tmp_path: Path) -> None:
    """Nothing of it needs privileges; what only root could keep is dropped."""
    work = tmp_path / "work"
    work.mkdir()
    source = work / "source"
    subprocess.run(["cp", "-a", tree, source], check=True)
    os.mknod(source / "dev/null", 0o20666, os.makedev(1, 3))
    (source / "usr/tool").touch()
    (source / "usr/tool").chmod(0o4755)
    (source / "usr/closed").mkdir(mode=0o500)
    subprocess.run(["mksquashfs", source, work / "root.sqfs", "-quiet", "-no-progress"], check=True)
    shutil.copy(made["oci-archive"], work / "o.tar")
    subprocess.run(["chown", "-R", "-h", "65534:65534", work], check=True)
    open_to_all(tmp_path)
    script = f"""
set -e
cd {work}
convert() {{ {sys.executable} -c 'from chlaunch.cli.convert import main; main()' -q "$@"; }}
convert ./source stored:1
convert stored:1 ./x.sqfs
convert ./x.sqfs ./from-squash
convert stored:1 ./from-storage
convert ./root.sqfs ./from-root
convert -o docker-archive ./from-root ./a.tar
convert -i docker-archive ./a.tar again:1
convert again:1 ./from-archive
convert ./o.tar layers:1
convert layers:1 ./from-layers
"""
    done = subprocess.run(
        [*NOBODY, "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "CH_IMAGE_STORAGE": str(work / "storage"), "TMPDIR": str(work), "HOME": str(work)},
    )
    assert done.returncode == 0, done.stderr
    wanted = {name: row for name, row in looks(tree).items() if not name.startswith("usr/t")}
    for name in ("squash", "storage", "root", "archive", "layers"):
        found = looks(work / f"from-{name}")
        assert found.pop("usr/closed", None) == ("0o40700" if name != "layers" else None)
        assert {key: row for key, row in found.items() if not key.startswith("usr/t")} == wanted, name
        tool = work / f"from-{name}/usr/tool"
        assert name == "layers" or stat.S_IMODE(tool.stat().st_mode) == 0o755
        assert {path.lstat().st_uid for path in (work / f"from-{name}").rglob("*")} == {65534}
