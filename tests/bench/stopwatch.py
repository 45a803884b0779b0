"""A stop-watch on a node of the tests' cluster, and what is made of its times: ratios, not times."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(CHECKOUT / "tests" / name) for name in ("cluster", "images", "registry/servers")
]  # no package

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster import Cluster

    Command = Sequence[str]

TOOLS = Path("/tmp/bench")
OURS = str(CHECKOUT / ".venv/bin/ch-run")
PEER = "/usr/bin/ch-run"  # Debian's Charliecloud
TRUE = "/bin/true"  # the image's is static


@dataclass(frozen=True)
class Row:
    """One comparison: medians of milliseconds above the bare command, and their ratio."""

    name: str
    ours: float
    peer: float
    ratio: float
    unit: str
    n: int
    goal: float | None
    low: float  # the ratios of single rounds: 10th and 90th percentile
    high: float


class Bench:
    """A node, an image, and a stop-watch that starts commands there as alice."""

    def __init__(self, cluster: Cluster, directory: str) -> None:
        """Build the stop-watch on the node, and an OCI bundle for crun."""
        self.cluster = cluster
        self.image = directory
        self.node = "n1"
        cluster.root(self.node, ["mkdir", "-p", str(TOOLS)])
        for name in ("storm", "only-exec"):
            source = CHECKOUT / f"tests/bench/{name}.c"
            compile_ = ["gcc", "-O2", "-static", "-D_GNU_SOURCE", "-o", f"{TOOLS}/{name}", str(source)]
            cluster.root(self.node, compile_)

    def squash(self, name: str, directory: str) -> str:
        """Make a SquashFS file of a directory, return its path."""
        path = str(self.cluster.home("alice") / name)
        words = ["mksquashfs", directory, path, "-comp", "zstd", "-Xcompression-level", "3", "-noappend"]
        self.cluster.run([*words, "-no-progress", "-quiet"], node=self.node, check=True, timeout=600)
        return path

    def milliseconds(self, count: int, command: Command) -> float:
        """Return how long `count` copies of the command take that start at once."""
        words = [f"{TOOLS}/storm", str(count), *command]
        result = self.cluster.run(words, node=self.node, timeout=300, check=True)
        return int(result.stdout) / 1e6

    def rounds(self, count: int, runs: int, commands: Mapping[str, Command]) -> dict[str, list[float]]:
        """Return the times of each command, measured in turns so that a noisy moment meets all alike."""
        measures = {name: partial(self.milliseconds, count, command) for name, command in commands.items()}
        return alternate(runs, measures)


def alternate(runs: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Call each measure `runs` times, in turns, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(runs + 1):
        for name, measure in measures.items():
            value = measure()
            if turn > 0:
                times[name].append(value)
    return times


def compare(
    name: str,
    times: Mapping[str, Sequence[float]],
    pair: tuple[str, str],
    base: str,
    goal: float | None = None,
) -> Row:
    """Return the row for our time above the bare command's, over the peer's above its."""
    ours, peer = (statistics.median(times[key]) - statistics.median(times[base]) for key in pair)
    singles = [
        (mine - bare) / (theirs - bare)
        for mine, theirs, bare in zip(times[pair[0]], times[pair[1]], times[base], strict=True)
        if theirs > bare
    ]
    deciles = statistics.quantiles(singles, n=10)
    ratio = ours / peer if peer > 0 else float("nan")
    count = len(times[base])
    return Row(
        name,
        round(ours, 3),
        round(peer, 3),
        round(ratio, 3),
        "ms",
        count,
        goal,
        round(deciles[0], 3),
        round(deciles[-1], 3),
    )
