#!/usr/bin/env python3
"""Measure chlaunch beside its peers, in one run, as an unprivileged user: `make bench`. Ratios, not times."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rows_build import bench_build
from rows_files import bench_file, bench_file_crowd, bench_growth, bench_memory, bench_python
from rows_images import bench_images
from rows_mpi import bench_messages
from rows_spank import bench_spank
from stopwatch import CHECKOUT, OURS, PEER, TOOLS, TRUE, Bench, Row, alternate, compare

from cluster import Cluster  # isort: skip  stopwatch says where it is
from images import cache_directory, image  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stopwatch import Command

ENTRY_RUNS, CROWD_RUNS, SRUN_RUNS, PYTHON_RUNS, TRACE_RUNS = 60, 15, 7, 15, 25
CROWD = 128


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
        "only exec": [f"{TOOLS}/only-exec", bare],
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
        *joining_rows(bench, times),
        compare("entry: ch-run DIR -- true / bwrap", times, ("ours", "bwrap"), "bare"),
        compare("entry: ch-run DIR -- true / crun", times, ("ours", "crun"), "bare"),
    ]


def joining_rows(bench: Bench, times: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return what joining costs a rank beyond a static program that only execs, and its system calls."""
    own = statistics.median(times["joining"]) - statistics.median(times["only exec"])
    words = [OURS, "--join-tag=bench", bench.image, "--", TRUE]
    trace = bench.cluster.run(["strace", *words], node=bench.node, check=True).stderr
    calls = trace.split("\n")
    before = next(number for number, line in enumerate(calls[1:]) if line.startswith("execve("))
    return [
        Row(
            "entry: joining rank, ms more than a static exec",
            round(own, 3),
            0.3,
            round(own, 3),
            "ms",
            len(times["bare"]),
            0.3,
            0,
            0,
        ),
        Row("entry: joining rank, system calls", before, 0, before, "calls", 1, None, 0, 0),
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


def bench_trace(bench: Bench) -> list[Row]:
    """Return what --ch-trace adds to a launch; like srun's own time, too noisy for its goal of 1.02."""
    launch = [str(CHECKOUT / ".venv/bin/ch-launch"), "--ch-mpi=none", "-N1", f"-n{CROWD}"]

    def times(*option: str) -> float:
        words = [f"{TOOLS}/storm", "1", *launch, *option, bench.image, "--", TRUE]
        output = bench.cluster.run(words, node=bench.node, check=True, timeout=60).stdout
        return int(output.splitlines()[-1]) / 1e6

    measured = alternate(
        TRACE_RUNS,
        {"none": lambda: 0.0, "plain": times, "traced": lambda: times("--ch-trace=bench-trace.json")},
    )
    return [compare(f"ch-launch -N1 -n{CROWD}: --ch-trace / without", measured, ("traced", "plain"), "none")]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    sys.stdout.write(f"{'':58} {'ours':>8} {'peer':>8} {'':5} {'ratio':>7}  {'p10-p90':11} goal   n\n")
    for row in rows:
        goal = "      " if row.goal is None else f"<={row.goal:<4}"
        late = " MISSED" if row.goal is not None and not row.ratio <= row.goal else ""
        spread = f"{row.low:.2f}-{row.high:.2f}"
        sys.stdout.write(
            f"{row.name:58} {row.ours:8.2f} {row.peer:8.2f} {row.unit:5} {row.ratio:7.2f}  {spread:11} {goal} {row.n:3}{late}\n"
        )


def main() -> int:
    """Measure, print the table, write build/bench.json; 1 if a goal was missed."""
    with Cluster(1, reveal=[cache_directory()]) as cluster:
        bench = Bench(cluster, str(image("tiny")))
        rows = [*bench_entry(bench), *bench_crowd(bench), *bench_srun(bench), *bench_plan(bench)]
        rows += bench_trace(bench)
        rows += bench_spank(bench)
        rows += [*bench_file(bench), *bench_file_crowd(bench), *bench_growth(bench), *bench_memory(bench)]
        rows += bench_python(bench, str(image("ompi4")))
        rows += [*bench_images(bench), *bench_build(bench)]
        rows += bench_messages(bench, str(image("wheels")))
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
