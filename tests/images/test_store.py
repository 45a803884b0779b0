"""Storage: what is in it after pulls, deletions and collections, also after those that were killed anywhere."""

import bisect
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from made import Silent, layout, store_at

from chlaunch.errors import ImageError, StorageError
from chlaunch.image import flatten, keeping
from chlaunch.image.finding import Wanted
from chlaunch.image.importing import Importing, import_path
from chlaunch.image.layout import Layout
from chlaunch.image.manifest import Descriptor, Platform
from chlaunch.image.opening import open_store
from chlaunch.image.pull import pull
from chlaunch.image.push import prepared
from chlaunch.image.records import StoredImage
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store
from chlaunch.image.tools import Tools

BASE = {"bin": None, "bin/sh": b"shell", "etc": None, "etc/a": b"a", "etc/b": b"b", "usr": None}
SECOND = {"etc": None, "etc/.wh.a": b"", "etc/c": b"c", "opt": None, "opt/x": b"x" * 10_000}
THIRD = {"opt": None, "opt/.wh..wh..opq": b"", "opt/y": b"y", "bin/bash": "=>bin/sh"}

# Of audit events, on which a pull can be killed (Python's "Audit events table"), those that change a file system.
CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod")


SEEN = """
cd "$0"
mount -t overlay -o "ro,userxattr,lowerdir=$1" none /mnt
cd /mnt
find . -path ./ch -prune -o -printf '%P\\n' | sort
find . -path ./ch -prune -o -type f -print0 | sort -z | xargs -0 cat | sha256sum
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return storage with nothing in it."""
    return store_at(tmp_path / "storage")


@pytest.fixture
def source(tmp_path: Path) -> Layout:
    """Return an image of three layers; the third has a hard link to a file of the first."""
    return layout(tmp_path / "layout", [BASE, SECOND, THIRD])


def get(store: Store, source: Layout, name: str = "small:1", what: str = "1") -> StoredImage:
    """Pull an image."""
    return pull(store, source, Wanted(name, name, what, Platform("amd64")), Silent())


def seen(store: Store, name: str = "small:1") -> list[str]:
    """Return the files of an image, and all that is in them, as the kernel shows them; /ch is left out."""
    image = store.image(name)
    assert image is not None
    lower = ":".join(f"l/{layer.short}" for layer in reversed(image.layers))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", SEEN, store.path, lower],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_an_image_in_layers(store: Store, source: Layout) -> None:
    image = get(store, source)
    assert [layer.key.partition("-")[0] for layer in image.layers] == ["layer", "layer", "chain", "top"]
    files = seen(store)
    assert {"bin/sh", "bin/bash", "etc/b", "etc/c", "opt/y", "proc", "sys", "dev", "tmp"} <= set(files)
    assert not {"etc/a", "opt/x"} & set(files)
    assert (store.path / "images" / "small+1" / "layers").read_text().count("\n") == 4


def test_layers_are_shared(store: Store, source: Layout, tmp_path: Path) -> None:
    first = get(store, source)
    layout(tmp_path / "layout", [BASE, SECOND, {"opt/z": b"z"}], name="2")
    second = get(store, source, "small:2", "2")
    assert [layer.short for layer in first.layers[:2]] == [layer.short for layer in second.layers[:2]]
    uses = {use.image.name: use for use in keeping.usage(store)}
    assert 0 < uses["small:2"].own < uses["small:2"].size


def test_a_second_pull_fetches_nothing(store: Store, source: Layout, tmp_path: Path) -> None:
    first = get(store, source)
    for layer in json.loads(first.manifest)["layers"]:
        (tmp_path / "layout/blobs/sha256" / layer["digest"].partition(":")[2]).unlink()
    again = get(store, source)
    assert again.layers == first.layers


@pytest.mark.parametrize("refused", ["", "users can't mount overlays here"])
def test_two_pulls_at_once(
    store: Store, source: Layout, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Each blob is read once, whoever does it, also where layers become one."""
    if refused:
        monkeypatch.setattr(flatten, "reason", lambda *_: refused)
    read: list[str] = []

    class Counting:
        """The layout, with a note of each blob that is opened."""

        def manifest(self, what: str) -> tuple[bytes, str]:
            return source.manifest(what)

        def blob(self, descriptor: Descriptor, start: int = 0) -> AbstractContextManager[BinaryIO]:
            read.append(descriptor.digest)
            return source.blob(descriptor, start)

    threads = [
        threading.Thread(target=get, args=(store, Counting(), f"small:{number}")) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    layers = {layer["digest"] for layer in json.loads(store.images()[0].manifest)["layers"]}
    assert sorted(digest for digest in read if digest in layers) == sorted(layers)
    assert len({image.trees for image in store.images()}) == 1
    assert len(store.images()) == 4


def test_delete_and_undelete(store: Store, source: Layout) -> None:
    get(store, source)
    get(store, source, "other")
    with pytest.raises(ImageError, match=r"no image matches: nosuch\*"):
        keeping.delete(store, ("small*", "nosuch*"), Silent().say)
    assert len(store.images()) == 2
    assert keeping.delete(store, ("sm*:?",), Silent().say) == ["small:1"]
    assert [image.name for image in store.images()] == ["other"]
    assert [image.name for image in store.images("deleted")] == ["small:1"]
    keeping.undelete(store, "small:1", Silent().say)
    assert [image.name for image in store.images()] == ["other", "small:1"]
    with pytest.raises(ImageError, match="no deleted image"):
        keeping.undelete(store, "small:1", Silent().say)


def test_deleted_twice(store: Store, source: Layout) -> None:
    for _ in range(2):
        get(store, source)
        keeping.delete(store, ("small:1",), Silent().say)
    assert store.images() == []
    get(store, source)
    with pytest.raises(ImageError, match="image exists"):
        keeping.undelete(store, "small:1", Silent().say)


def test_what_gc_removes(store: Store, source: Layout, tmp_path: Path) -> None:
    get(store, source)
    layout(tmp_path / "layout", [BASE, {"opt/z": b"z" * 5000}], name="2")
    get(store, source, "small:2", "2")
    before = seen(store, "small:2")
    keeping.delete(store, ("small:1",), Silent().say)
    assert keeping.room(store).deleted > 0
    assert keeping.collect(store, Silent().say) > 0
    assert keeping.room(store).deleted == 0
    assert len(list((store.path / "l").iterdir())) == 3
    assert seen(store, "small:2") == before
    assert keeping.collect(store, Silent().say) == 0


def test_reset(store: Store, source: Layout) -> None:
    get(store, source)
    keeping.reset(store, Silent().say)
    assert [path.name for path in store.path.iterdir()] == ["lock"]
    again = store_at(store.path)
    assert again.images() == []


def test_foreign_directories(tmp_path: Path) -> None:
    for number, (name, said) in enumerate((("img dlcache", "charliecloud's"), ("letter.txt", "not ours"))):
        path = tmp_path / str(number)
        for word in name.split():
            (path / word).mkdir(parents=True)
        with pytest.raises(StorageError, match=said) as caught:
            open_store(path, Silent().say)
        assert name.split()[-1] in caught.value.message
        assert sorted(entry.name for entry in path.iterdir()) == sorted(name.split())


@pytest.mark.parametrize("version", [1, 2, 7])
def test_charliecloud_s_storage(tmp_path: Path, version: int) -> None:
    """It has a file named version, too, and by default the same path; its images can be imported."""
    for name in ("bucache", "bularge", "dlcache", "ulcache", "img/alpine+3.19/bin", "img/alpine+3.19/usr"):
        (tmp_path / "old" / name).mkdir(parents=True)
    (tmp_path / "old/img/alpine+3.19/dev").mkdir()
    (tmp_path / "old/version").write_text(f"{version}\n")
    for create in (True, False):
        with pytest.raises(StorageError, match="is charliecloud's storage") as caught:
            open_store(tmp_path / "old", Silent().say, create=create)
        assert f"ch-image import {tmp_path}/old/img/NAME NAME" in caught.value.hint
    importing = Importing(Tools(os.environ, Silent()), tmp_path)
    store = store_at(tmp_path / "new")
    import_path(store, f"{tmp_path}/old/img/alpine+3.19", "alpine:3.19", importing, os.environ)
    assert [image.name for image in store.images()] == ["alpine:3.19"]


def test_files_that_lost_their_content(store: Store, source: Layout, tmp_path: Path) -> None:
    """After a power loss: whichever file it is, each command works, and another pull mends the image."""
    whole = prepared(store, get(store, source), Silent())
    before = seen(store)
    # An image that has no archives, until it is pushed.
    part = pull(store, source, Wanted("part", "part", "1", Platform("amd64"), last=2), Silent())
    archived = prepared(store, part, Silent())
    get(store, source, "gone")
    keeping.delete(store, ("gone",), Silent().say)
    inside = [path.relative_to(store.path) for path in store.path.rglob("*") if path.is_file()]
    files = [path for path in inside if path.parts[0] not in ("l", "locks")]
    assert {path.parts[0] for path in files} >= {"blobs", "layers", "images", "deleted", "version", "lock"}
    for file in files:
        subprocess.run(["cp", "-a", store.path, tmp_path / "try"], check=True)
        os.truncate(tmp_path / "try" / file, 0)
        damaged = open_store(tmp_path / "try", Silent().say, create=False)
        assert damaged is not None
        if file.parts[0] != "layers":
            assert len(damaged.images()) == 2 - (file.parts[0] == "images" and file.name == "image.json")
        keeping.room(damaged)
        known = damaged.image("part")
        if known is not None and known.config:
            assert prepared(damaged, known, Silent()) == archived
        assert prepared(damaged, get(damaged, source), Silent()) == whole
        keeping.collect(damaged, Silent().say)
        assert seen(damaged) == before
        assert all(map(damaged.has_blob, whole[0].layers)), file
        assert keeping.delete(damaged, ("*",), Silent().say) == ["part", "small:1"]
        keeping.collect(damaged, Silent().say)
        assert list((damaged.path / "l").iterdir()) == []
        remove_tree(tmp_path / "try")


@pytest.mark.parametrize("refused", ["", "users can't mount overlays here"])
def test_damaged_blobs(store: Store, source: Layout, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Of the right size, but not what was fetched: when a layer is made of them they are fetched again."""
    if refused:
        monkeypatch.setattr(flatten, "reason", lambda *_: refused)
    known = {layer.key for layer in get(store, source).layers}
    blobs = {path: path.read_bytes() for path in (store.path / "blobs/sha256").iterdir()}
    assert len(blobs) > 2
    for path, content in blobs.items():
        path.write_bytes(bytes(len(content)))
    for path in (store.path / "layers").iterdir():
        remove_tree(path)
    assert {layer.key for layer in get(store, source, "again").layers} == known
    assert {path: path.read_bytes() for path in blobs} == blobs


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store = store_at(tmp_path / "empty")
    assert store.images() == []


def test_other_versions(store: Store) -> None:
    (store.path / "version").write_text("99\n")
    with pytest.raises(StorageError, match="has version 99, and this chlaunch knows 1"):
        open_store(store.path, Silent().say)


def test_no_storage_is_made_to_look_into(tmp_path: Path) -> None:
    assert open_store(tmp_path / "nowhere", Silent().say, create=False) is None
    assert not (tmp_path / "nowhere").exists()


def test_others_storage(tmp_path: Path) -> None:
    """In a directory where anybody may make it, storage of somebody else is nobody's; so is a link there."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "common").mkdir()
    (tmp_path / "common").chmod(0o1777)
    theirs = tmp_path / "common" / "store"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    link = tmp_path / "common" / "link"
    link.symlink_to(tmp_path)
    os.lchown(link, 12345, 12345)
    for path in (theirs, link):
        with pytest.raises(StorageError, match="belongs to user 12345"):
            open_store(path, Silent().say)


def killed_at(change: int, work: Callable[[], object]) -> bool:
    """Run work in a child that kills itself right before its nth change; say whether it came so far."""
    pid = os.fork()
    if pid == 0:
        counter = itertools.count(1)

        def watch(event: str, _arguments: object) -> None:
            if event in CHANGES and next(counter) == change:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def every_stage(path: Path, work: Callable[[Store], object], check: Callable[[Store], None]) -> int:
    """Kill work at fifty stages of it, each time in new storage, and check; return how many there were."""

    def once(change: int) -> bool:
        store = store_at(path / str(change))
        was_killed = killed_at(change, lambda: work(store))
        # The kernel may not have ended the child's locks for a moment; what it left is looked at as the next
        # command would, some time later.
        for left in (store.path / "tmp").iterdir():
            os.utime(left, (0, 0), follow_symlinks=False)
        again = store_at(store.path)
        assert list((again.path / "tmp").iterdir()) == []
        check(again)
        remove_tree(store.path)
        return was_killed

    most = 1 << 12
    total = bisect.bisect_left(range(1, most), 1, key=lambda change: 0 if once(change) else 1)
    for change in range(1, total, max(1, total // 50)):
        assert once(change)
    return total


def test_pulls_killed_at_every_stage(tmp_path: Path, source: Layout) -> None:
    whole = None

    def check(store: Store) -> None:
        nonlocal whole
        image = store.image("small:1")
        before = None if image is None else seen(store)
        get(store, source)
        after = seen(store)
        assert before in (None, after)
        assert whole in (None, after)
        whole = after
        keeping.collect(store, Silent().say)
        assert seen(store) == after

    assert every_stage(tmp_path, lambda store: get(store, source), check) > 30


def test_replacements_killed_at_every_stage(tmp_path: Path, source: Layout) -> None:
    """An image of that name is always there: the one before, or the one after."""
    other = layout(tmp_path / "other", [BASE, {"opt/new": b"new"}])

    def prepared(path: Path) -> None:
        store = store_at(path)
        get(store, source)

    for change in range(1, 60, 2):
        path = tmp_path / str(change)
        prepared(path)
        store = store_at(path)
        killed_at(change, partial(get, store, other))
        files = seen(store)
        assert ("opt/y" in files) != ("opt/new" in files)
        remove_tree(path)


@pytest.mark.usefixtures("source")
def test_a_full_disk(tmp_path: Path) -> None:
    """What does not fit is said, and nothing is left of it; with room, the same command works."""
    big = {"opt/big": os.urandom(4 << 20)}
    layout(tmp_path / "layout", [BASE, big], name="big")
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            ON_SMALL_DISK,
            sys.executable,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no room in storage" in done.stdout or "can't unpack" in done.stdout
    assert "No space left on device" in done.stdout
    assert done.stdout.splitlines()[-1] == "then ['small:1']"


@pytest.mark.usefixtures("source")
def test_layers_that_cant_be_stacked(tmp_path: Path) -> None:
    """A ramfs has no user attributes: there an image is one directory, with the same files."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", ON_RAMFS, sys.executable, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no user attributes" in done.stdout
    assert set(done.stdout.splitlines()[-1].split()) >= {
        "bin/bash",
        "bin/sh",
        "etc/b",
        "etc/c",
        "opt/y",
        "proc",
    }
    assert not {"etc/a", "opt/x"} & set(done.stdout.splitlines()[-1].split())


PULL = """
import sys
from pathlib import Path
from chlaunch.cli.progress import Lines
from chlaunch.errors import ChlaunchError
from chlaunch.image.files import DirectoryFiles
from chlaunch.image.importing import Importing, import_path
from chlaunch.image.layout import Layout
from chlaunch.image.manifest import Platform
from chlaunch.image.finding import Wanted
from chlaunch.image.pull import pull
from chlaunch.image.opening import open_store
from chlaunch.trees import Directory
class Printing(Lines):
    def warn(self, line):
        print(line)
where, storage, what = sys.argv[1:]
store = open_store(Path(storage), print)
source = Layout(DirectoryFiles(Directory(where + "/layout"), where), where)
try:
    image = pull(store, source, Wanted(f"small:{what}", what, what, Platform("amd64")), Printing(2))
    print(*sorted(str(path.relative_to(tree)) for tree in image.trees for path in tree.rglob("*")))
except ChlaunchError as error:
    print(error.message)
"""

ON_SMALL_DISK = f"""
mkdir -p "$1/small"
mount -t tmpfs -o size=3m none "$1/small"
"$0" -c '{PULL}' "$1" "$1/small/store" big
find "$1/small/store/tmp" -mindepth 1 | grep . && exit 1
"$0" -c '{PULL}' "$1" "$1/small/store" 1 >/dev/null
echo then "['$(ls "$1/small/store/images" | tr + :)']"
"""

ON_RAMFS = f"""
mkdir -p "$1/ram"
mount -t ramfs none "$1/ram"
"$0" -c '{PULL}' "$1" "$1/ram/store" 1
"""
