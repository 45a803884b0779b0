#!/usr/bin/env python3
"""Measure chlaunch beside its peers, in one run, as an unprivileged user: `make bench`. Ratios, not times."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/cluster"))  # tests are not a package

from cluster import Cluster  # noqa: E402
from images import cache_directory, image  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Command = Sequence[str]

TOOLS = Path("/tmp/bench")
OURS = str(CHECKOUT / ".venv/bin/ch-run")
PEER = "/usr/bin/ch-run"  # Debian's Charliecloud
TRUE = "/bin/true"  # the image's is static
ENTRY_RUNS, CROWD_RUNS, SRUN_RUNS, PYTHON_RUNS = 60, 15, 7, 15
CROWD = 128


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
        source = CHECKOUT / "tests/bench/storm.c"
        compile_ = ["gcc", "-O2", "-static", "-D_GNU_SOURCE", "-o", f"{TOOLS}/storm", str(source)]
        cluster.root(self.node, compile_)

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


def crun_bundle(bench: Bench) -> Command:
    """Return a command that runs `true` with crun: user and mount namespace only, as we do."""
    spec = {
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [TRUE], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": bench.image, "readonly": True},
        "mounts": [
            {"destination": path, "source": path, "type": "none", "options": ["rbind"]}
            for path in ("/dev", "/proc", "/sys", "/tmp")
        ],
        "linux": {"namespaces": [{"type": "user"}, {"type": "mount"}]},
    }
    uid = int(bench.cluster.run("id -u", node=bench.node).stdout)
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": uid, "size": 1}]  # type: ignore[index]
    home = bench.cluster.home("alice") / "bundle"
    script = f"mkdir -p {home} && cat >{home}/config.json <<'EOF'\n{json.dumps(spec)}\nEOF"
    bench.cluster.run(["sh", "-c", script], node=bench.node, check=True)
    root = f"/run/user/{uid}/crun"
    return ["/bin/sh", "-c", f"exec crun --cgroup-manager=disabled --root={root} run --bundle {home} b$$"]


def bench_entry(bench: Bench) -> list[Row]:
    """Return container entry to exec, over a bare exec of the same static program."""
    holder = bench.cluster.popen(
        [OURS, "--join-tag=bench", bench.image, "--", "sleep", "600"], node=bench.node
    )
    bare = f"{bench.image}{TRUE}"
    commands = {
        "bare": [bare],
        "ours": [OURS, bench.image, "--", TRUE],
        "joining": [OURS, "--join-tag=bench", bench.image, "--", TRUE],
        "Charliecloud": [PEER, bench.image, "--", TRUE],
        "bwrap": [
            "/usr/bin/bwrap",
            "--ro-bind",
            bench.image,
            "/",
            "--dev-bind",
            "/dev",
            "/dev",
            "--proc",
            "/proc",
            "--",
            TRUE,
        ],
        "crun": crun_bundle(bench),
    }
    try:
        times = bench.rounds(1, ENTRY_RUNS, commands)
    finally:
        holder.kill()
        holder.wait()
    return [
        compare("entry: ch-run DIR -- true / Charliecloud", times, ("ours", "Charliecloud"), "bare", 0.5),
        compare("entry: joining rank / Charliecloud", times, ("joining", "Charliecloud"), "bare", 0.3),
        compare("entry: ch-run DIR -- true / bwrap", times, ("ours", "bwrap"), "bare"),
        compare("entry: ch-run DIR -- true / crun", times, ("ours", "crun"), "bare"),
    ]


def bench_crowd(bench: Bench) -> list[Row]:
    """Return many ranks at once on one node, without srun."""
    bare = f"{bench.image}{TRUE}"
    commands = {
        "bare": [bare],
        "joined": [OURS, "--join", bench.image, "--", TRUE],
        "Charliecloud": [PEER, bench.image, "--", TRUE],
    }
    times = bench.rounds(CROWD, CROWD_RUNS, commands)
    return [
        compare(f"{CROWD} at once: --join / Charliecloud", times, ("joined", "Charliecloud"), "bare", 0.35)
    ]


def bench_srun(bench: Bench) -> list[Row]:
    """Return the same under srun; its own time varies more than what is measured, so there is no goal."""

    def srun(*command: str) -> Callable[[], float]:
        words = ["srun", "-N1", f"-n{CROWD}", "--mpi=none", *command]
        script = f"start=$(date +%s%N); {' '.join(words)} >/dev/null 2>&1 || echo failed >&2; echo $(($(date +%s%N) - start))"
        return lambda: int(bench.cluster.run(["bash", "-c", script], timeout=120, check=True).stdout) / 1e6

    # Charliecloud's --join can't be timed with `true`: its first rank is gone before the others join, and what that
    # leaves behind breaks the next run. All get the same command that lasts, and each run a tag of its own.
    lasting = ["sh", "-c", "'sleep 1'"]
    times = alternate(
        SRUN_RUNS,
        {
            "bare": srun("/bin/true"),
            "joined": srun(OURS, "--join", bench.image, "--", TRUE),
            "Charliecloud": srun(PEER, bench.image, "--", TRUE),
            "bare lasting": srun(*lasting),
            "joined lasting": srun(OURS, "--join", bench.image, "--", *lasting),
            "Charliecloud lasting": srun(
                PEER,
                "--join",
                f"--join-ct={CROWD}",
                "--join-tag=$SLURM_JOB_ID.$RANDOM",
                bench.image,
                "--",
                *lasting,
            ),
        },
    )
    name = f"srun -N1 -n{CROWD}"
    return [
        compare(f"{name} true: --join / Charliecloud, no join", times, ("joined", "Charliecloud"), "bare"),
        compare(
            f"{name} sleep 1: --join / Charliecloud --join",
            times,
            ("joined lasting", "Charliecloud lasting"),
            "bare lasting",
        ),
    ]


def bench_plan(bench: Bench) -> list[Row]:
    """Return ch-launch from Enter to the planned line, over the start of Python with click."""
    python = str(CHECKOUT / ".venv/bin/python")
    launch = [python, str(CHECKOUT / ".venv/bin/ch-launch"), "--ch-dry-run", "-n4", bench.image, "--", "true"]
    import_ = [python, "-c", "import click"]

    def times(command: Sequence[str]) -> float:
        words = [f"{TOOLS}/storm", "1", *command]
        output = bench.cluster.run(words, node=bench.node, check=True, timeout=60).stdout
        return int(output.splitlines()[-1]) / 1e6

    measured = alternate(
        PYTHON_RUNS, {"none": lambda: 0.0, "ours": lambda: times(launch), "click": lambda: times(import_)}
    )
    return [
        compare(
            "ch-launch --ch-dry-run / python3 -c 'import click'", measured, ("ours", "click"), "none", 3.0
        )
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    sys.stdout.write(f"{'':56} {'ours':>9} {'peer':>9} {'ratio':>7}  {'p10-p90':13} goal   n\n")
    for row in rows:
        goal = "      " if row.goal is None else f"<={row.goal:<4}"
        late = " MISSED" if row.goal is not None and not row.ratio <= row.goal else ""
        spread = f"{row.low:.2f}-{row.high:.2f}"
        sys.stdout.write(
            f"{row.name:56} {row.ours:6.2f} ms {row.peer:6.2f} ms {row.ratio:7.2f}  {spread:13} {goal} {row.n:3}{late}\n"
        )


def main() -> int:
    """Measure, print the table, write build/bench.json; 1 if a goal was missed."""
    with Cluster(1, reveal=[cache_directory()]) as cluster:
        bench = Bench(cluster, str(image("tiny")))
        rows = [*bench_entry(bench), *bench_crowd(bench), *bench_srun(bench), *bench_plan(bench)]
    show(rows)
    output = CHECKOUT / "build/bench.json"
    output.parent.mkdir(exist_ok=True)
    asked = {**os.environ, "USER": "bench"}  # without it Debian's does not even tell its version
    versions = subprocess.run([PEER, "--version"], capture_output=True, text=True, check=False, env=asked)
    report = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "peer": (versions.stdout + versions.stderr).strip(),
        "rows": {row.name: asdict(row) for row in rows},
    }
    output.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(row.goal is not None and not row.ratio <= row.goal for row in rows))


if __name__ == "__main__":
    sys.exit(main())
