"""Time large messages between two ranks, there and back, as the OSU benchmarks do; prints milliseconds a message."""

from __future__ import annotations

import statistics
import sys
import time

from mpi4py import MPI

SIZES = (4 << 20, 8 << 20, 16 << 20)
WARM, ROUNDS = 3, 15


def main() -> None:
    """Measure every size; rank 0 prints the mean over the sizes of the time of 4 MiB."""
    world = MPI.COMM_WORLD
    rank = world.Get_rank()
    other = 1 - rank
    shares = []
    for size in SIZES:
        out, back = bytearray(size), bytearray(size)
        times = []
        for _ in range(WARM + ROUNDS):
            world.Barrier()
            start = time.perf_counter()
            if rank == 0:
                world.Send(out, dest=other)
                world.Recv(back, source=other)
            else:
                world.Recv(back, source=other)
                world.Send(out, dest=other)
            times.append((time.perf_counter() - start) / 2)
        shares.append(statistics.median(times[WARM:]) * SIZES[0] / size)
    if rank == 0:
        sys.stdout.write(f"{statistics.mean(shares) * 1e3:.4f}\n")


if __name__ == "__main__":
    main()
