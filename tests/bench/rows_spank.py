"""What the SPANK plugin costs: loaded and unused, planning, and an image for many ranks.

pyxis is no peer here: Debian has no package of it.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from stopwatch import OURS, TOOLS, TRUE, Bench, Row, alternate

import plugin  # isort: skip  stopwatch says where it is

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UNUSED_RUNS, RUNS, RANKS = 60, 15, 128

# Goals, in milliseconds: of srun's own start with the plugin loaded, of planning, and of a rank per core.
UNUSED, PLANNER, RANK = 2.0, 150.0, 1.0

FILE_RUNS = 25


def bench_spank(bench: Bench) -> list[Row]:
    """Return the rows. The plugin is in a configuration of its own, for the sruns that ask for it."""
    conf = bench.cluster.outside("/etc/slurm/slurm.conf").read_text()
    variables = []
    for name, plugstack in ("bare", ""), ("loaded", plugin.line()):
        directory = f"{bench.cluster.home('alice')}/{name}"
        bench.cluster.run(["mkdir", "-p", directory], node=bench.node, check=True)
        bench.cluster.outside(f"{directory}/plugstack.conf").write_text(plugstack)
        bench.cluster.outside(f"{directory}/slurm.conf").write_text(
            f"{conf}PlugStackConfig={directory}/plugstack.conf\n"
        )
        variables.append(f"SLURM_CONF={directory}/slurm.conf")

    def srun(variable: str, *words: str) -> Callable[[], float]:
        command = [f"{TOOLS}/storm", "1", "/usr/bin/env", variable, "srun", *words]
        return lambda: _milliseconds(bench, command)

    bare, loaded = variables
    # srun has loaded its plugins when it comes to this option, and asks no daemon for it
    start = alternate(UNUSED_RUNS, {"with": srun(loaded, "--mpi=list"), "without": srun(bare, "--mpi=list")})
    job = ["-N1", f"-n{RANKS}", "--mpi=none"]
    image = f"--ch-image={bench.image}"
    ranks = alternate(
        RUNS,
        {
            "bare": srun(bare, *job, TRUE),
            "image": srun(loaded, *job, image, TRUE),
            "planner": srun(loaded, *job, image, "--ch-dry-run", TRUE),
        },
    )
    cores = int(bench.cluster.run(["nproc"], node=bench.node, check=True).stdout)
    shares = [
        (ours - planner - bare) * cores / RANKS
        for ours, planner, bare in zip(ranks["image"], ranks["planner"], ranks["bare"], strict=True)
    ]
    more = [ours - bare for ours, bare in zip(start["with"], start["without"], strict=True)]
    return [
        _row("srun, plugin loaded and unused: ms more", more, UNUSED),
        _row("srun --ch-image --ch-dry-run: ms to the plan", ranks["planner"], PLANNER),
        _row(f"srun -N1 -n{RANKS} --ch-image: ms more x cores / ranks", shares, RANK),
        *_file_rows(bench, lambda path: srun(loaded, *job, f"--ch-image={path}", TRUE)),
    ]


def _file_rows(bench: Bench, srun: Callable[[str], Callable[[], float]]) -> list[Row]:
    """Return what a SquashFS file costs a step more than a directory, beside one start of its server."""
    file = bench.squash("spank.sqfs", bench.image)
    times = alternate(
        FILE_RUNS,
        {
            "file": srun(file),
            "directory": srun(bench.image),
            "file alone": lambda: bench.milliseconds(1, [OURS, file, "--", TRUE]),
            "directory alone": lambda: bench.milliseconds(1, [OURS, bench.image, "--", TRUE]),
        },
    )
    pairs = zip(times["file"], times["directory"], strict=True)
    server = statistics.median(times["file alone"]) - statistics.median(times["directory alone"])
    more = [ours - theirs for ours, theirs in pairs]
    ours, deciles = statistics.median(more), statistics.quantiles(more, n=10)
    name = f"srun -N1 -n{RANKS} --ch-image: SQFS above DIR / a server"
    return [
        Row(
            name,
            round(ours, 3),
            round(server, 3),
            round(ours / server, 3),
            "ms",
            FILE_RUNS,
            None,
            round(deciles[0] / server, 3),
            round(deciles[-1] / server, 3),
        )
    ]


def _milliseconds(bench: Bench, command: Sequence[str]) -> float:
    """Return how long a command takes, by the stop-watch's last line."""
    output = bench.cluster.run(command, node=bench.node, check=True, timeout=120).stdout
    return int(output.splitlines()[-1]) / 1e6


def _row(name: str, values: Sequence[float], goal: float) -> Row:
    """Return a row of milliseconds that has a goal and no peer."""
    middle = round(statistics.median(values), 3)
    deciles = statistics.quantiles(values, n=10)
    return Row(
        name, middle, goal, middle, "ms", len(values), goal, round(deciles[0], 3), round(deciles[-1], 3)
    )
