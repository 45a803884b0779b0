"""What ch-convert costs beyond the programs that it has do the work."""

from __future__ import annotations

from functools import partial

from stopwatch import CHECKOUT, Bench, Row, alternate, compare

RUNS = 5
RATIO = 1.1

# Milliseconds that a conversion may take besides: Python starts, an overlay is mounted.
START = 300

CONVERT = str(CHECKOUT / ".venv/bin/ch-convert")


def bench_convert(bench: Bench, directory: str) -> list[Row]:
    """Return image files and archives, of storage and of a directory, over the programs' own times."""
    home = bench.cluster.home("alice")
    squash = [
        "/usr/bin/mksquashfs",
        directory,
        f"{home}/p.sqfs",
        "-comp",
        "zstd",
        "-Xcompression-level",
        "3",
        "-noappend",
    ]
    pack = f"tar -C {directory} -c . | zstd -q -T0 -3 -f -o {home}/p.tar.zst"
    option = ["-q", "-s", f"{home}/convert-storage"]
    bench.cluster.run([CONVERT, *option, directory, "bench:1"], node=bench.node, check=True, timeout=600)
    commands = {
        "storage": [CONVERT, *option, "bench:1", f"{home}/o.sqfs"],
        "mksquashfs": [*squash, "-all-root", "-no-progress", "-quiet"],
        "tar": [CONVERT, *option, directory, f"{home}/o.tar.zst"],
        "tar | zstd": ["/bin/sh", "-c", pack],
    }

    def measure(name: str) -> float:
        return bench.milliseconds(1, commands[name]) - (START if commands[name][0] == CONVERT else 0)

    measured = alternate(RUNS, {name: partial(measure, name) for name in commands})
    times = {"none": [0.0] * RUNS, **measured}
    return [
        compare(
            "ch-convert storage SQFS, less 0.3 s / mksquashfs",
            times,
            ("storage", "mksquashfs"),
            "none",
            RATIO,
        ),
        compare(
            "ch-convert DIR TAR.ZST, less 0.3 s / tar | zstd", times, ("tar", "tar | zstd"), "none", RATIO
        ),
    ]
