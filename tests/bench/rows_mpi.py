"""What large messages between two ranks of a node cost in a container, and outside of any."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stopwatch import CHECKOUT, Bench, Row, alternate, compare

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 7

# Bandwidth joined is to be 0.97 of that outside: 1.03 of the time.
SLOWDOWN = 1.03

# MPIs of image wheels: the directory of the Python environment there, its library, srun's type.
MPIS = (
    ("Open MPI 5.0.11", "/opt/openmpi5", "libmpi.so.40", "pmix"),
    ("MPICH 5.0.2", "/opt/mpich5", "libmpi.so.12", "pmi2"),
)


def bench_messages(bench: Bench, image: str) -> list[Row]:
    """Return the time of messages of 4 to 16 MiB joined, and not joined, over that of the same files outside."""
    script = bench.cluster.outside("/home/alice/pingpong.py")
    shutil.copy(CHECKOUT / "tests/bench/pingpong.py", script)
    rows = []
    for title, place, library, plugin in MPIS:
        python = f"{place}/bin/python3"
        launch = [str(CHECKOUT / ".venv/bin/ch-launch"), "-N1", "-n2"]
        outside = ["srun", f"--mpi={plugin}", "-N1", "-n2", *_outside(image, place, library), "pingpong.py"]
        measures = {
            "none": lambda: 0.0,
            "outside": _measure(bench, outside),
            "joined": _measure(bench, [*launch, image, "--", python, "pingpong.py"]),
            "separate": _measure(bench, [*launch, "--ch-no-join", image, "--", python, "pingpong.py"]),
        }
        times = alternate(RUNS, measures)
        name = f"4-16 MiB messages, {title}:"
        rows.append(compare(f"{name} joined / bare", times, ("joined", "outside"), "none", SLOWDOWN))
        rows.append(compare(f"{name} not joined / bare", times, ("separate", "outside"), "none"))
    return rows


def _measure(bench: Bench, words: list[str]) -> Callable[[], float]:
    """Return what runs a job and returns the milliseconds that it prints."""
    return lambda: float(bench.cluster.run(words, timeout=120, check=True).stdout)


def _outside(image: str, place: str, library: str) -> list[str]:
    """Return the words that run an image's Python where no container is: its own loader is told where all is."""
    loaders = (Path(image, name) for name in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"))
    loader = next(str(path) for path in loaders if path.exists())
    variables = {
        "PYTHONHOME": f"{image}/usr",
        "PYTHONPATH": f"{image}{place}/lib/python3.11/site-packages",
        "MPI4PY_LIBMPI": f"{image}{place}/lib/{library}",
        "PMIX_MCA_psec": "native",  # the wheel's PMIx has no munge
    }
    paths = ":".join(f"{image}/{name}" for name in ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"))
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return ["env", *assignments, loader, "--library-path", paths, f"{image}/usr/bin/python3.11"]
