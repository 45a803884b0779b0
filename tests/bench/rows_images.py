"""What images cost: pulled, pushed and converted, beside Debian's ch-image, skopeo with umoci, mksquashfs and tar."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stopwatch import CHECKOUT, Bench, Row, alternate, compare

from certificates import Authority  # isort: skip  stopwatch says where these are
from images import image  # isort: skip
from served import served  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machine import Machine
    from served import Served

RUNS = 4
OURS, PEER = str(CHECKOUT / ".venv/bin/ch-image"), "/usr/bin/ch-image"
CONVERT = str(CHECKOUT / ".venv/bin/ch-convert")

# Goals: to Charliecloud, to skopeo and umoci, of a pull that shares three of four layers, of a
# push of one small layer more, of conversions (beyond what Python needs to start, in milliseconds), MiB.
PULL, PULL_SKOPEO, SHARED, PUSH, CONVERSION, START, MEMORY = 0.35, 1.0, 0.3, 0.1, 1.1, 300.0, 150.0

# $1: an image with many files, 150 MB if compressed; $2: another one. Makes four layers, with a fifth, and three of
# them with another fourth; as images 1, 2 and 3. (By umoci insert it would be less to write, but that of 0.4.7 ends
# archives early; repack reads all files many times.)
LAYERS = """
mkdir parts && cp -a "$1" parts/base && cd parts && mkdir -p llvm/usr/lib amd/usr/lib mpi/usr/lib more/opt
lib=$(cd base && echo usr/lib/*-linux-gnu)
mkdir -p llvm/$lib amd/$lib
mv base/$lib/libLLVM* llvm/$lib && mv base/$lib/libamd* base/$lib/libz3* amd/$lib && mv base/$lib mpi/usr/lib
mkdir other && cp -a "$2" other/opt && echo more >more/opt/more
cd .. && umoci init --layout layout && umoci new --image layout:0
add() {
	tar -C "parts/$3" --owner=root:0 --group=root:0 -cf layer.tar .
	umoci raw add-layer --image "layout:$1" --tag "$2" layer.tar
}
add 0 a base && add a b llvm && add b c amd && add c 1 mpi && add 1 2 more && add c 3 other
rm -r parts layer.tar
for tag in 1 2 3; do
	skopeo copy --dest-tls-verify=false "oci:layout:$tag" "docker://$3/bench:$tag"
done
"""

# What it takes at most, in KiB, with the programs that it runs and awaits.
PEAK = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(usage.ru_maxrss)
sys.exit(status != 0)
"""

# $1: a small image. It becomes one of 2 GiB of which little is left if they are compressed.
LARGE = """
cp -r "$1" large
python3 -c 'import os, sys
for _ in range(1 << 15):
    sys.stdout.buffer.write(os.urandom(1 << 12) + bytes(15 << 12))' >large/usr/data
"""


# Out of the way, until the machine goes: after many files were deleted, ext4 without a journal is slow to make new ones.
AWAY = 'mkdir -p away; for old in %s; do [ ! -e "$old" ] || mv "$old" "away/$(date +%%s%%N)"; done'


@dataclass(frozen=True)
class Images:
    """A machine where all is done, as alice in her home, and its registries."""

    machine: Machine
    source: Served
    target: Served

    def do(self, script: str, *words: str) -> str:
        """Run a script; return what it printed."""
        return self.machine.run(["sh", "-euc", script, "sh", *words], timeout=900, check=True).stdout

    def timer(self, script: str, before: str = "true") -> Callable[[], float]:
        """Return a function that gives the milliseconds a script takes; what is before it does not count."""

        def measure() -> float:
            self.do(before)
            begun = time.monotonic()
            self.do(script)
            return (time.monotonic() - begun) * 1000

        return measure

    def peak(self, *words: str) -> float:
        """Return the MiB of memory that a command takes."""
        done = self.machine.run(["python3", "-c", PEAK, *words], timeout=900, check=True)
        return int(done.stdout.splitlines()[-1]) / 1024


def bench_images(bench: Bench) -> list[Row]:
    """Return all rows."""
    with _images(bench.cluster.machine) as images:
        images.do(LAYERS, str(image("ompi5")), f"{image('wheels')}/opt/mpich5", images.source.host)
        return [*_pulls(images), *_pushes(images), *_conversions(images), *_memory(images)]


@contextmanager
def _images(machine: Machine) -> Iterator[Images]:
    with (
        tempfile.TemporaryDirectory() as directory,
        served(machine, "source", 5000, authority=Authority(Path(directory) / "ca")) as source,
        served(machine, "target", 5001) as target,
    ):
        yield Images(machine, source, target)


def _pulls(images: Images) -> list[Row]:
    """Return pulls: of four layers, and of another image that has three of them."""
    host = images.source.host
    copy = f"skopeo copy --quiet --src-tls-verify=false docker://{host}/bench:1 oci:copy:1"
    times = alternate(
        RUNS,
        {
            "none": images.timer("true"),
            "ours": images.timer(_pull(images, 1), AWAY % "ours"),
            "shared": images.timer(_pull(images, 3)),
            "Charliecloud": images.timer(
                f"{PEER} -s theirs --no-cache --tls-no-verify pull {host}/bench:1 >log 2>&1", AWAY % "theirs"
            ),
            "skopeo": images.timer(
                f"{copy} && umoci unpack --rootless --image copy:1 bundle", AWAY % "copy bundle"
            ),
        },
    )
    return [
        compare("pull of 4 layers: ch-image / Charliecloud", times, ("ours", "Charliecloud"), "none", PULL),
        compare("pull of 4 layers: ch-image / skopeo, umoci", times, ("ours", "skopeo"), "none", PULL_SKOPEO),
        compare("pull: 3 of 4 layers are there / none is", times, ("shared", "ours"), "none", SHARED),
    ]


def _pull(images: Images, tag: int) -> str:
    return f"{OURS} -s ours --tls-no-verify -q pull {images.source.host}/bench:{tag}"


def _pushes(images: Images) -> list[Row]:
    """Return pushes, as of an image that was built here: its layers have no archives yet."""
    images.do(f"{AWAY % 'ours'}; {_pull(images, 1)}; {_pull(images, 2)}")
    push = f"{OURS} -s ours -q push {images.source.host}/bench:%s {images.target.host}/bench:%s"
    wipe = f"rm -rf {images.target.directory}/storage/docker"
    unarchive = "find ours/blobs -type f -delete"
    times = alternate(
        RUNS,
        {
            "none": images.timer("true"),
            "full": images.timer(push % (1, 1), f"{wipe}; {unarchive}"),
            "more": images.timer(push % (2, 2)),
        },
    )
    return [compare("push: one small layer more / all layers", times, ("more", "full"), "none", PUSH)]


def _conversions(images: Images) -> list[Row]:
    """Return conversions, less what Python takes to start."""
    images.do(f"{CONVERT} -s ours -q -o dir {images.source.host}/bench:1 ./tree")
    squash = "-comp zstd -Xcompression-level 3 -all-root -noappend -no-progress -quiet"
    times = alternate(
        RUNS,
        {
            "none": images.timer("true"),
            "squash": images.timer(f"{CONVERT} -s ours -q {images.source.host}/bench:1 ./1.sqfs"),
            "mksquashfs": images.timer(f"mksquashfs tree peer.sqfs {squash}"),
            "tar": images.timer(f"{CONVERT} -q ./tree ./1.tar.zst"),
            "tar and zstd": images.timer("tar -C tree -c . | zstd -q -f -3 -T0 -o peer.tar.zst"),
        },
    )
    for name in ("squash", "tar"):
        times[name] = [value - START for value in times[name]]
    start = f"less {START:.0f} ms"
    return [
        compare(f"to SquashFS, {start} / mksquashfs", times, ("squash", "mksquashfs"), "none", CONVERSION),
        compare(f"to tar.zst, {start} / tar | zstd", times, ("tar", "tar and zstd"), "none", CONVERSION),
    ]


def _memory(images: Images) -> list[Row]:
    """Return what it takes to push, to pull and to convert an image of one layer of 2 GiB."""
    images.do(LARGE, str(image("tiny")))
    name = f"{images.target.host}/large:1"
    rows = {
        "push": images.peak(OURS, "-s", "ours", "-q", "push", "--image=large", name),
        "pull": images.peak(OURS, "-s", "ours", "-q", "pull", name),
        "to tar.zst": images.peak(CONVERT, "-s", "ours", "-q", name, "./2.tar.zst"),
        "to SquashFS": images.peak(CONVERT, "-s", "ours", "-q", name, "./2.sqfs"),
        "from tar.zst": images.peak(CONVERT, "-s", "ours", "-q", "./2.tar.zst", "./2"),
    }
    return [
        Row(f"memory for 2 GiB: {name}", round(peak, 1), MEMORY, round(peak, 1), "MiB", 1, MEMORY, 0, 0)
        for name, peak in rows.items()
    ]
