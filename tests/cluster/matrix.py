#!/usr/bin/env python3
"""The matrix: every MPI by every launcher, joined or not, from a directory or a SquashFS file.

``matrix.py [--readme FILE] [--json FILE] [--only TEXT]`` runs all cells and prints the table: each cell is one job
of `chlaunch.probe --expect N` with messages up to 16 MiB, or is refused before launch with what to type instead.
A cell with anything else fails: singletons, a hang, an error, or a line that a library prints and the plan could
have avoided. --readme writes the table between the marks of that file.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster import Cluster
from images import ImageUnavailableError, cache_directory, image
from machine import CHECKOUT
from space import MachineError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEADLINE = 120.0
CH_LAUNCH = CHECKOUT / ".venv/bin/ch-launch"
BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"


class Guest(NamedTuple):
    """An MPI in an image. python: one with mpi4py for it. variables: what it must be told on this cluster.

    nodes: two, but one for MPICH before 4.2 with UCX, whose MPI_Finalize hangs now and then over TCP, without a
    container too (https://github.com/pmodels/mpich/pull/6596), and for the wheel of Intel MPI, which has no libfabric.
    """

    title: str
    image: str
    python: str
    nodes: int = 2
    variables: tuple[str, ...] = ()


# The release candidate of Open MPI 6 finds no way between the nodes of this cluster, unless it is told the interface.
ETH0 = ("OMPI_MCA_btl_tcp_if_include=eth0",)

GUESTS = (
    Guest("Open MPI 4.1.4 (Debian 12)", "ompi4", "/usr/bin/python3"),
    Guest("Open MPI 5.0.7 (Debian 13)", "ompi5", "/usr/bin/python3"),
    Guest("Open MPI 5.0.11 (wheel)", "wheels", "/opt/openmpi5/bin/python3"),
    Guest("Open MPI 6.0.0rc2 (Debian testing)", "testing", "/usr/bin/python3", variables=ETH0),
    Guest("MPICH 3.4.3 (wheel)", "wheels", "/opt/mpich3/bin/python3"),
    Guest("MPICH 4.0.2 (Debian 12)", "mpich4", "/opt/mpi4py/bin/python3", nodes=1),
    Guest("MPICH 4.2.3 (wheel)", "wheels", "/opt/mpich4/bin/python3"),
    Guest("MPICH 5.0.2 (wheel)", "wheels", "/opt/mpich5/bin/python3"),
    Guest("MPICH 5.0.2 (Debian testing)", "testing", "/opt/mpi4py/bin/python3"),
    Guest("Intel MPI 2021.19 (wheel)", "wheels", "/opt/intel/bin/python3", nodes=1),
)


class Starter(NamedTuple):
    """A launcher. program: the directory of the host's mpirun, a path inside image wheels; words: for ch-launch."""

    title: str
    words: tuple[str, ...]
    program: str = ""

    @property
    def is_srun(self) -> bool:
        """Say whether it is Slurm's."""
        return self.title.startswith("srun")


STARTERS = (
    Starter("srun", ()),
    Starter("srun pmix", ("--mpi=pmix",)),
    Starter("srun pmi2", ("--mpi=pmi2",)),
    Starter("srun none", ("--mpi=none",)),
    Starter("host's mpirun", ("--ch-launcher=mpirun", "--oversubscribe")),
    Starter("Open MPI 5's mpirun", ("--ch-launcher=mpirun", "--oversubscribe"), "opt/openmpi5/bin"),
    Starter("Hydra 4.2", ("--ch-launcher=mpirun",), "opt/mpich4/bin"),
    Starter("guest", ("--ch-launcher=guest",)),
)


class Cell(NamedTuple):
    """One job."""

    guest: Guest
    starter: Starter
    join: bool
    squashed: bool

    def __str__(self) -> str:
        """Return what it is called."""
        join = "" if self.starter.title == "guest" else ", joined" if self.join else ", not joined"
        return (
            f"{self.guest.title}, {self.starter.title}{join}, {'SquashFS' if self.squashed else 'directory'}"
        )


class Outcome(NamedTuple):
    """How a cell went: ok, refused or FAILED; how long it took, in seconds; and what it said."""

    verdict: str
    seconds: float
    text: str


def cells() -> Iterator[Cell]:
    """Give every cell."""
    for guest in GUESTS:
        for starter in STARTERS:
            for join in (True,) if starter.title == "guest" else (True, False):
                for squashed in (False, True):
                    yield Cell(guest, starter, join, squashed)


class Matrix:
    """Runs cells on a two-node cluster, as alice."""

    def __init__(self, cluster: Cluster) -> None:
        """Put the probe where jobs start."""
        self.cluster = cluster
        self.squashed: dict[str, str] = {}
        shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside("/home/alice/probe.py"))

    def run(self, cell: Cell) -> Outcome:
        """Run a cell and judge it."""
        ranks = 4 if cell.guest.nodes == 2 and cell.starter.is_srun else 3
        options = list(cell.starter.words)
        if cell.starter.is_srun:
            options += ["-N2", "--ntasks-per-node=2"] if ranks == 4 else ["-N1"]
        if cell.starter.title != "guest":
            options.append("--ch-join" if cell.join else "--ch-no-join")
        options += ["-n", str(ranks)]
        if cell.starter.is_srun:  # the others start all ranks on the login node, which has another interface
            options += [f"--ch-set-env={variable}" for variable in cell.guest.variables]
        probe = [cell.guest.python, "probe.py", f"--expect={ranks}", "--timeout=45"]
        if cell.join:
            probe.append("--require-cma")
        start = time.monotonic()
        try:
            job = self.cluster.run(
                [CH_LAUNCH, *options, self._image(cell), "--", *probe],
                timeout=DEADLINE,
                env=self._environment(cell),
            )
        except subprocess.TimeoutExpired as error:
            return Outcome("FAILED", time.monotonic() - start, f"no end in {DEADLINE:g} s: {error.output}")
        return Outcome(judge(job, ranks), time.monotonic() - start, job.stdout + job.stderr)

    def _environment(self, cell: Cell) -> dict[str, str]:
        """Return the variables of the user who has that launcher first in PATH."""
        path = "/usr/local/bin:/usr/bin:/bin"
        return {"PATH": f"{image('wheels')}/{cell.starter.program}:{path}"} if cell.starter.program else {}

    def _image(self, cell: Cell) -> str:
        """Return the path of the image, a SquashFS file made anew if it is to be one."""
        name = cell.guest.image
        if not cell.squashed:
            return str(image(name))
        if name not in self.squashed:
            path = f"/home/alice/{name}.sqfs"
            quiet = "-comp zstd -Xcompression-level 1 -noappend -quiet -no-progress"
            self.cluster.run(f"mksquashfs {image(name)} {path} {quiet}", check=True, timeout=300)
            self.squashed[name] = path
        return self.squashed[name]


# What probes and launchers say where all is well.
EXPECTED = re.compile(
    r"\d+: (init ok|(Open MPI|MPICH|Intel)|ring ok|pairwise exchange ok|cross-memory attach|finalize ok).*"
)


def judge(job: subprocess.CompletedProcess[str], ranks: int) -> str:
    """Return the verdict on a job that has ended."""
    if job.returncode == 2 and job.stdout == "":
        lines = job.stderr.splitlines()
        good = len(lines) in (2, 3) and "error: " in lines[0] and all("hint: " in line for line in lines[1:])
        return "refused" if good else "FAILED"
    strange = [line for line in (job.stdout + job.stderr).splitlines() if not EXPECTED.fullmatch(line)]
    whole = job.stdout.count(f", {ranks} ranks,") == job.stdout.count("finalize ok") == ranks
    return "ok" if job.returncode == 0 and whole and not strange else "FAILED"


def table(outcomes: dict[Cell, Outcome]) -> str:
    """Return the table in Markdown: a row for each MPI, a column for each launcher, one word for its cells."""
    found: dict[tuple[str, str], dict[bool, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell, outcome in outcomes.items():
        found[cell.guest.title, cell.starter.title][cell.join].add(outcome.verdict)
    starters = [starter.title for starter in STARTERS]
    lines = [f"| | {' | '.join(starters)} |", f"|---|{'---|' * len(starters)}"]
    for guest in GUESTS:
        words = [_words(found[guest.title, starter]) for starter in starters]
        lines.append(f"| {guest.title} | {' | '.join(words)} |")
    return "\n".join(lines)


def _words(verdicts: dict[bool, set[str]]) -> str:
    """Return what became of the cells of one pair: joined, and if that differs, not joined."""
    joined, separate = (" and ".join(sorted(verdicts.get(join, ()))) for join in (True, False))
    return joined if separate in ("", joined) else f"{joined}, not joined: {separate}"


def write_readme(path: Path, text: str) -> None:
    """Put the table between the marks of a file."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def run_all(matrix: Matrix, wanted: Iterable[Cell]) -> dict[Cell, Outcome]:
    """Run cells one after another; say each."""
    outcomes = {}
    for cell in wanted:
        outcomes[cell] = outcome = matrix.run(cell)
        sys.stderr.write(f"{outcome.verdict:8} {outcome.seconds:5.1f} s  {cell}\n")
        if outcome.verdict == "FAILED":
            sys.stderr.write(f"{outcome.text[-2000:]}\n")
    return outcomes


def main() -> int:
    """Run the matrix; 1 if a cell failed."""
    parser = argparse.ArgumentParser(description="Every MPI by every launcher, joined or not.")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every cell there")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose names have TEXT")
    options = parser.parse_args()
    try:
        for name in dict.fromkeys(guest.image for guest in GUESTS):
            image(name)
        with Cluster(2, reveal=[cache_directory()]) as cluster:
            outcomes = run_all(Matrix(cluster), [cell for cell in cells() if options.only in str(cell)])
    except (ImageUnavailableError, MachineError, UnavailableError) as error:
        sys.exit(f"matrix.py: {error}")
    sys.stdout.write(f"{table(outcomes)}\n")
    if options.readme:
        write_readme(options.readme, table(outcomes))
    if options.json:
        rows = [{"cell": str(cell), **outcome._asdict()} for cell, outcome in outcomes.items()]
        options.json.write_text(json.dumps(rows, indent=1))
    return int(any(outcome.verdict == "FAILED" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
