"""What image files cost, and what many ranks do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stopwatch import OURS, PEER, TRUE, Bench, Row, alternate, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FILE_RUNS, FILE_CROWD_RUNS, GROWTH_RUNS, PYTHON_RUNS = 20, 7, 7, 15
FILE_CROWD, FEW, MANY = 64, 64, 512
GROWTH, IMPORTS, PYTHON_RATIO = 1.3, 300, 1.35


def bench_file(bench: Bench) -> list[Row]:
    """Return a container from a SquashFS file, with its server."""
    file = bench.squash("tiny.sqfs", bench.image)
    commands = {
        "bare": [f"{bench.image}{TRUE}"],
        "ours": [OURS, file, "--", TRUE],
        "Charliecloud": [PEER, file, "--", TRUE],
    }
    times = bench.rounds(1, FILE_RUNS, commands)
    return [
        compare("entry: ch-run SQFS -- true / Charliecloud", times, ("ours", "Charliecloud"), "bare", 0.6)
    ]


def bench_file_crowd(bench: Bench) -> list[Row]:
    """Return many ranks on one SquashFS file: one server here, one each there."""
    file = bench.squash("tiny.sqfs", bench.image)
    commands = {
        "bare": [f"{bench.image}{TRUE}"],
        "joined": [OURS, "--join", file, "--", TRUE],
        "Charliecloud": [PEER, file, "--", TRUE],
    }
    times = bench.rounds(FILE_CROWD, FILE_CROWD_RUNS, commands)
    name = f"{FILE_CROWD} at once, SQFS: --join / Charliecloud"
    return [compare(name, times, ("joined", "Charliecloud"), "bare", 0.3)]


def bench_growth(bench: Bench) -> list[Row]:
    """Return a rank's share of the time of many ranks through one rendezvous, over its share of few."""
    words = [OURS, "--join", bench.image, "--", TRUE]
    measures: dict[str, Callable[[], float]] = {
        "none": lambda: 0.0,
        "many": lambda: bench.milliseconds(MANY, words) / MANY,
        "few": lambda: bench.milliseconds(FEW, words) / FEW,
    }
    times = alternate(GROWTH_RUNS, measures)
    return [compare(f"a rank of {MANY} / a rank of {FEW}, joined", times, ("many", "few"), "none", GROWTH)]


def resident(bench: Bench, ranks: int, file: str) -> float:
    """Return the MiB that server and keeper of a file take which so many ranks read."""
    words = [OURS, "--join", file, "--", "sh", "-c", "find /usr -type f -exec cat {} + >/dev/null; sleep 2"]
    script = (
        f"for i in $(seq {ranks}); do {' '.join(words[:6])} '{words[-1]}' & done; sleep 1.5;"
        " ps -o rss= -p $(pgrep -d, -f '^squashfuse_ll|ch-run-keeper'),$(pgrep -d, -x ch-run-keeper); wait"
    )
    output = bench.cluster.run(["bash", "-c", script], node=bench.node, check=True, timeout=120).stdout
    return sum(map(int, output.split())) / 1024


def bench_memory(bench: Bench) -> list[Row]:
    """Return what server and keeper take with many ranks, over what they take with one."""
    file = bench.squash("tiny.sqfs", bench.image)
    many, one = resident(bench, FILE_CROWD, file), resident(bench, 1, file)
    name = f"memory of keeper and server: {FILE_CROWD} ranks / 1 rank"
    return [Row(name, round(many, 2), round(one, 2), round(many / one, 3), "MiB", 1, None, 0, 0)]


def bench_python(bench: Bench, directory: str) -> list[Row]:
    """Return a Python program with many imports, from a file that is warm over a directory that is."""
    file = bench.squash("python.sqfs", directory)
    pick = (
        f"import sys\nfor m in sorted(sys.stdlib_module_names):\n if len(sys.modules) < {IMPORTS} and m not in "
        "('antigravity', 'this', 'idlelib') and m[0] != '_':\n  try: __import__(m)\n  except ImportError: pass\n"
        f"assert len(sys.modules) >= {IMPORTS}, len(sys.modules)"
    )
    holders = []
    measures: dict[str, Callable[[], float]] = {"none": lambda: 0.0}
    for name, image in (("file", file), ("directory", directory)):
        join = [OURS, f"--join-tag=python-{name}", image, "--"]
        holders.append(bench.cluster.popen([*join, "sleep", "600"], node=bench.node))
        measures[name] = timer(bench, [*join, "python3", "-c", pick])
    try:
        times = alternate(PYTHON_RUNS, measures)
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
    name = f"python3, {IMPORTS} imports, warm: SQFS / directory"
    return [compare(name, times, ("file", "directory"), "none", PYTHON_RATIO)]


def timer(bench: Bench, words: Sequence[str]) -> Callable[[], float]:
    """Return a function that gives the milliseconds a command takes."""
    return lambda: bench.milliseconds(1, words)
