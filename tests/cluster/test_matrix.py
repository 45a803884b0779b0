"""A part of the matrix; `make matrix` runs all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from matrix import Matrix, cells

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet
    from cluster import Cluster

# MPI, launcher, joined, from a SquashFS file, and what is to come of it: each MPI, each launcher, each way to refuse.
PART = [
    ("Open MPI 4.1.4", "srun", True, True, "ok"),
    ("Open MPI 4.1.4", "srun", False, False, "ok"),
    ("Open MPI 4.1.4", "srun none", True, False, "refused"),
    ("Open MPI 4.1.4", "Open MPI 5's mpirun", True, False, "refused"),
    ("Open MPI 4.1.4", "Hydra 4.2", True, False, "refused"),
    ("Open MPI 5.0.7", "srun pmi2", True, False, "refused"),
    ("Open MPI 5.0.7", "Open MPI 5's mpirun", True, False, "ok"),
    ("Open MPI 5.0.11", "srun", True, False, "ok"),
    ("Open MPI 5.0.11", "guest", True, False, "ok"),
    ("MPICH 3.4.3", "srun", True, False, "ok"),
    ("MPICH 4.0.2", "srun", True, False, "ok"),
    ("MPICH 4.0.2", "srun", False, False, "refused"),
    ("MPICH 4.2.3", "srun pmix", True, False, "refused"),
    ("MPICH 5.0.2 (wheel)", "srun", False, False, "ok"),
    ("MPICH 5.0.2 (wheel)", "Hydra 4.2", False, False, "ok"),
    ("MPICH 5.0.2 (wheel)", "host's mpirun", True, False, "refused"),
    ("Intel MPI", "srun", True, False, "ok"),
    ("Intel MPI", "Hydra 4.2", True, False, "ok"),
]


@pytest.fixture(scope="session")
def matrix(cluster: Cluster) -> Matrix:
    """Return what runs cells."""
    return Matrix(cluster)


def case(row: tuple[str, str, bool, bool, str]) -> ParameterSet:
    """Return a row as parameters."""
    guest, starter, *_, verdict = row
    needs_pmix = guest.startswith("Open MPI") and (starter, verdict) == ("srun", "ok")
    return pytest.param(*row, marks=[pytest.mark.pmix] * needs_pmix, id=", ".join(map(str, row)))


@pytest.mark.parametrize(("guest", "starter", "join", "squashed", "verdict"), [case(row) for row in PART])
@pytest.mark.usefixtures("image_ompi4", "image_ompi5", "image_mpich4", "image_wheels")
def test_cell(  # noqa: PLR0913, PLR0917  columns
    matrix: Matrix,
    guest: str,
    starter: str,
    join: bool,  # noqa: FBT001
    squashed: bool,  # noqa: FBT001
    verdict: str,
) -> None:
    (wanted,) = [
        cell
        for cell in cells()
        if cell.guest.title.startswith(guest)
        and (cell.starter.title, cell.join, cell.squashed) == (starter, join, squashed)
    ]
    outcome = matrix.run(wanted)
    assert outcome.verdict == verdict, outcome.text
