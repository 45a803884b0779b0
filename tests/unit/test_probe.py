"""The probe's parts that need no MPI; the whole of it runs in tests/cluster."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chlaunch import probe

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_patterns_differ_by_sender_size_and_position() -> None:
    size = 1 << 20
    mine = probe.pattern(0, size)
    assert len(mine) == size
    assert mine != probe.pattern(1, size)
    assert mine[: size // 2] != probe.pattern(0, size // 2)
    for shift in (1, 64, 4096, 65536, 1 << 18):
        assert mine[shift:] != mine[:-shift]


def test_a_difference_is_named() -> None:
    got = bytearray(probe.pattern(3, 100_000))
    probe.compare(got, 3, "ring")
    got[70_001] ^= 1
    with pytest.raises(probe.DifferenceError, match=r"ring: byte 70001 from rank 3 is \d+, not \d+"):
        probe.compare(got, 3, "ring")


@pytest.mark.parametrize(
    ("ranks", "expected", "variables", "words"),
    [
        (4, None, {}, ""),
        (4, 4, {"SLURM_NTASKS": "4"}, ""),
        (2, 4, {}, "the world has 2 ranks, expected 4"),
        (1, None, {"SLURM_NTASKS": "4"}, "singleton: SLURM_NTASKS is 4"),
        (1, 4, {"SLURM_STEP_NUM_TASKS": "4"}, "singleton: SLURM_STEP_NUM_TASKS is 4"),
        (1, 1, {"SLURM_NTASKS": "4"}, ""),
        (1, None, {"OMPI_COMM_WORLD_SIZE": "1", "SLURM_NTASKS": "4"}, ""),
        (1, None, {}, ""),
    ],
)
def test_worlds(ranks: int, expected: int | None, variables: dict[str, str], words: str) -> None:
    said = probe.wrong_world(ranks, expected, variables)
    assert said.startswith(words)
    assert bool(said) == bool(words)


@pytest.fixture
def child() -> Iterator[int]:
    """Give a process that waits, with this one's memory."""
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(its)
        os.read(ours, 1)
        os._exit(0)
    os.close(ours)
    yield pid
    os.close(its)
    os.waitpid(pid, 0)


BUFFER = ctypes.create_string_buffer(probe.pattern(0, 4096), 4096)


def test_memory_of_another_process_is_read(child: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(BUFFER)
    assert probe.read_memory(libc, child, address, 4096) == (0, probe.pattern(0, 4096))
    assert probe.read_memory(libc, child, 8, 4096) == (errno.EFAULT, b"")


class Node:
    """What the probe asks of a node's communicator."""

    def Get_rank(self) -> int:  # noqa: N802  mpi4py's name
        """Return the first rank."""
        return 0

    def Get_size(self) -> int:  # noqa: N802  mpi4py's name
        """Return how many ranks the node has."""
        return 2


@pytest.mark.parametrize(
    ("outcomes", "codes", "words"),
    [
        ((0, 0), (0, 0), "cross-memory attach ok between 2 ranks of "),
        ((errno.EPERM, errno.EPERM), (0, 1), "attach does not work between 2 ranks of "),
        ((errno.EPERM, errno.EPERM), (0, 1), ": Operation not permitted (EPERM)"),
        ((0, errno.EPERM), (1, 1), "0 reads 1: ok, 1 reads 0: Operation not permitted (EPERM)"),
        ((-1, -1), (1, 1), "wrong bytes"),
        ((), (0, 0), "not tried: one rank on "),
    ],
)
def test_what_is_said_of_a_node(
    outcomes: tuple[int, ...], codes: tuple[int, int], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    readings = [probe.Reading(rank, 1 - rank, outcome) for rank, outcome in enumerate(outcomes)]
    node: Any = Node()
    said = [probe.report_cross_memory(node, 0, readings, required=required) for required in (False, True)]
    assert tuple(said) == codes
    assert words in capfd.readouterr().out


def test_old_pythons_can_read_it() -> None:
    path = Path(probe.__file__)
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"typing", "mpi4py"}
    plain = (ast.Name, ast.Attribute, ast.Constant)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.FunctionDef):
            annotation = node.annotation if isinstance(node, ast.arg) else node.returns
            # Python 3.6 evaluates annotations: no list[int], no X | Y outside quotes.
            assert annotation is None or isinstance(annotation, plain), ast.unparse(annotation)
