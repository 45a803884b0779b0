"""ch-image killed at random moments, and whether its storage is whole: of `make test` a hundred, of `make soak` many.

    kills.py pulls COUNT WORKERS REFERENCE           each worker has storage of its own, checked after each kill
    kills.py all SECONDS WORKERS REFERENCE TARGET    all on one storage: pull, push, import, delete, gc

Works in the current directory. REFERENCE:1 and REFERENCE:2 are images in a registry, TARGET is one to push to; for
`all`, there is also an archive a.tar.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from made import Silent, store_at

from chlaunch.image import keeping

OURS = str(Path(sys.executable).with_name("ch-image"))


def start(storage: Path, *words: str) -> subprocess.Popen[str]:
    """Start ch-image as the leader of a process group."""
    return subprocess.Popen(
        [OURS, f"--storage={storage}", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def kill(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill a command, and what it started, if it still runs after so many seconds; say whether it did."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    assert "Traceback" not in said, said
    return False


def finish(storage: Path, *words: str) -> float:
    """Run a command to its end, which must be a good one; return how many seconds it took."""
    begun = time.monotonic()
    process = start(storage, *words)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return time.monotonic() - begun


def digest(tree: Path) -> str:
    """Return a digest of all that is in a directory."""
    sha = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        sha.update(repr((str(path.relative_to(tree)), status.st_mode, content)).encode())
    return sha.hexdigest()


def check(storage: Path, known: dict[str, str], *, alone: bool) -> None:
    """See that all images are whole, and that a layer is always the same. alone: no command is at work."""
    if alone:
        for left in storage.glob("tmp/*"):
            os.utime(left, (0, 0), follow_symlinks=False)  # as the next command will find it, some time later
    store = store_at(storage)
    if alone:
        assert not list((storage / "tmp").iterdir())
    for image in store.images("images"):
        assert len(image.layers) == len(image.trees) == len(image.record.keys) + 1
        assert image.config
        for layer, tree in zip(image.layers, image.trees, strict=True):
            if layer.key != image.record.top:
                assert known.setdefault(layer.key, digest(tree)) == digest(tree), (image.name, layer)


def pulls(count: int, workers: int, reference: str) -> int:
    """Kill so many pulls; return of how many the moment was before their end."""
    known: dict[str, str] = {}
    whole = Path("whole")
    took = finish(whole, "pull", f"{reference}:1")
    check(whole, known, alone=True)
    layers = len(known)

    def work(number: int) -> int:
        storage = Path(f"killed-{number}")
        chance = random.Random(number)  # noqa: S311  the same each time
        killed = 0
        for turn in range(count // workers):
            killed += kill(start(storage, "pull", f"{reference}:1"), chance.uniform(0.1, 1.1) * took)
            if storage.exists():
                check(storage, known, alone=True)
                if turn % 3 == 0 and (store := store_at(storage)).images():
                    keeping.delete(store, ("*",), Silent().say)
                    keeping.collect(store, Silent().say)
        finish(storage, "pull", f"{reference}:1")
        check(storage, known, alone=True)
        return killed

    with ThreadPoolExecutor(workers) as pool:
        killed = sum(pool.map(work, range(workers)))
    assert len(known) == layers
    return killed


def everything(seconds: float, workers: int, reference: str, target: str) -> int:
    """Kill commands that work on one storage at the same time; return how many."""
    storage, known = Path("storage"), dict[str, str]()
    took = finish(storage, "pull", f"{reference}:1")
    commands = (
        ("pull", f"{reference}:1"),
        ("pull", f"{reference}:2"),
        ("pull", "--always-download", f"{reference}:1"),
        ("push", f"{reference}:1", target),
        ("import", "a.tar", "imported"),
        ("delete", "*:1"),
        ("delete", "*"),
        ("gc",),
    )
    end = time.monotonic() + seconds

    def work(number: int) -> int:
        chance = random.Random(f"{number} {time.time()}")  # noqa: S311  another each time
        killed = 0
        while time.monotonic() < end:
            killed += kill(start(storage, *chance.choice(commands)), chance.uniform(0.1, 2) * took)
        return killed

    with ThreadPoolExecutor(workers) as pool:
        killed = sum(pool.map(work, range(workers)))
    check(storage, known, alone=True)
    for tag in (1, 2):
        finish(storage, "pull", f"{reference}:{tag}")
    finish(storage, "import", "a.tar", "imported")
    finish(storage, "gc")
    check(storage, known, alone=True)
    return killed


if __name__ == "__main__":
    what, amount, threads, *words = sys.argv[1:]
    if what == "pulls":
        print(pulls(int(amount), int(threads), *words))  # noqa: T201  its result
    else:
        print(everything(float(amount), int(threads), *words))  # noqa: T201  likewise
