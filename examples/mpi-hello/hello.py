#!/usr/bin/python3
"""Say hello from every rank, and add up their numbers."""

from socket import gethostname

from mpi4py import MPI

world = MPI.COMM_WORLD
total = world.allreduce(world.rank)
print(f"hello from rank {world.rank} of {world.size} on {gethostname()}; all ranks add up to {total}")
