"""Prove that an MPI job is one job whose messages arrive: ``python3 -m chlaunch.probe``, or this file alone.

Every rank says where it is; a ring and pairwise exchanges move messages from 4 KiB to 16 MiB and compare
every byte (Open MPI 4.1 whose ranks do not share a user namespace passes at 1 MiB and hangs at 2.6 MB: small
messages prove nothing); then it is tried whether the ranks of a node can read each other's memory, the fast
way for large messages.

It needs Python 3.6 and mpi4py 3, but neither numpy nor chlaunch, so that it can be shown to any image as one
file. Annotations are quoted because Python 3.6 would evaluate them.
"""

import argparse
import ctypes
import errno
import hashlib
import os
import sys
import threading
import time
from typing import Any, NamedTuple

SIZES = (4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20)

# A prime: data that arrive shifted by any number of pages, cache lines or fragments are never equal.
PERIOD = 65521

# Who knows how many ranks were started, innermost launcher first (mpirun(1), PMI, srun(1)).
WORLD_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")

# prctl(2): Yama's way to let any process, not only an ancestor, attach to this one.
PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)

CMA_BYTES = 256 << 10


class DifferenceError(Exception):
    """A message arrived with other bytes than were sent."""


class Part(ctypes.Structure):
    """A struct iovec."""

    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Reading(NamedTuple):
    """How one rank's attempt to read another's memory went: an errno, 0 for success, -1 for wrong bytes."""

    reader: int
    owner: int
    outcome: int


class Watch:
    """Ends the job when a step takes longer than limit seconds, and says which: a hung rank tells nothing."""

    def __init__(self, rank: int, limit: float, abort: "Any") -> None:
        """Start watching; abort ends the whole job."""
        self.rank = rank
        self.limit = limit
        self.abort = abort
        self.text = "start"
        self.since = time.time()
        threading.Thread(target=self._watch, daemon=True).start()

    def step(self, text: str) -> None:
        """Begin the next step."""
        self.text = text
        self.since = time.time()

    def _watch(self) -> None:
        """Wait until a step has taken too long."""
        while time.time() - self.since < self.limit:
            time.sleep(min(1, self.limit / 4))
        say(self.rank, f"no progress for {self.limit:g} s: {self.text}")
        threading.Thread(target=self.abort, args=(1,), daemon=True).start()
        time.sleep(5)  # for the launcher to end the others; a library that hangs may never return from Abort
        os._exit(1)


def say(rank: int, text: str) -> None:
    """Print one line in one write, so that lines of many ranks do not mix."""
    os.write(1, f"{rank}: {text}\n".encode())


def pattern(sender: int, size: int) -> bytes:
    """Return size bytes that depend on sender, size and position."""
    block = hashlib.shake_128(f"{sender} {size}".encode()).digest(PERIOD)
    return (block * (size // PERIOD + 1))[:size]


def compare(received: "bytes | bytearray", sender: int, what: str) -> None:
    """Raise DifferenceError, naming the first byte, if received is not what sender sends."""
    expected = pattern(sender, len(received))
    if received == expected:
        return
    at = next(i for i in range(0, len(expected), 4096) if received[i : i + 4096] != expected[i : i + 4096])
    at = next(i for i in range(at, len(expected)) if received[i] != expected[i])
    raise DifferenceError(f"{what}: byte {at} from rank {sender} is {received[at]}, not {expected[at]}")


def exchange(world: "Any", target: int, source: int, size: int, what: str) -> None:
    """Send size bytes to target while as many come from source, and compare them."""
    received = bytearray(size)
    world.Sendrecv(pattern(world.Get_rank(), size), dest=target, recvbuf=received, source=source)
    compare(received, source, what)


def ring(world: "Any", sizes: "list[int]", watch: Watch) -> None:
    """Send to the right, receive from the left, all at once."""
    rank, ranks = world.Get_rank(), world.Get_size()
    for size in sizes:
        watch.step(f"ring of {size} bytes")
        exchange(world, (rank + 1) % ranks, (rank - 1) % ranks, size, f"ring of {size} bytes")
    world.Barrier()
    if rank == 0:
        say(rank, f"ring ok, {sizes[0]} to {sizes[-1]} bytes")


def pairs(world: "Any", sizes: "list[int]", watch: Watch) -> None:
    """Exchange with the ranks at distance 1, 2, 4 and so on: neighbours and ranks of other nodes."""
    rank, ranks = world.Get_rank(), world.Get_size()
    for size in sizes:
        distance = 1
        while distance < ranks:
            partner = rank ^ distance
            if partner < ranks:
                what = f"exchange of {size} bytes with rank {partner}"
                watch.step(what)
                exchange(world, partner, partner, size, what)
            distance *= 2
    world.Barrier()
    if rank == 0 and ranks > 1:
        say(rank, f"pairwise exchange ok, {sizes[0]} to {sizes[-1]} bytes")


def read_memory(libc: "Any", pid: int, address: int, size: int) -> "tuple[int, bytes]":
    """Return (errno, bytes) of an attempt to read another process's memory: process_vm_readv(2)."""
    buffer = ctypes.create_string_buffer(size)
    local = Part(ctypes.cast(buffer, ctypes.c_void_p), size)
    remote = Part(ctypes.c_void_p(address), size)
    call = libc.process_vm_readv
    call.restype = ctypes.c_ssize_t
    call.argtypes = [ctypes.c_int] + [ctypes.POINTER(Part), ctypes.c_ulong] * 2 + [ctypes.c_ulong]
    count = call(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    if count < 0:
        return ctypes.get_errno(), b""
    return 0, buffer.raw[:count]


def cross_memory(world: "Any", node: "Any") -> "list[Reading]":
    """Let each rank of a node read its neighbours' memory, both ways; return all outcomes to all of them."""
    rank = world.Get_rank()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)  # fails where there is no Yama, which is as good
    buffer = ctypes.create_string_buffer(pattern(rank, CMA_BYTES), CMA_BYTES)
    known = node.allgather((rank, os.getpid(), ctypes.addressof(buffer)))
    here, count = node.Get_rank(), node.Get_size()
    found = []
    for index in sorted({here - 1, here + 1} & set(range(count))):
        owner, pid, address = known[index]
        failed, got = read_memory(libc, pid, address, CMA_BYTES)
        wrong = -1 if not failed and got != pattern(owner, CMA_BYTES) else 0
        found.append(Reading(rank, owner, failed or wrong))
    # Gathering is a barrier too: nobody's buffer goes before all have read.
    return [reading for part in node.allgather(found) for reading in part]


def outcome(number: int) -> str:
    """Return what the outcome of a reading is called."""
    if number == 0:
        return "ok"
    return "wrong bytes" if number < 0 else f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"


def report_cross_memory(node: "Any", rank: int, readings: "list[Reading]", *, required: bool) -> int:
    """Say once per node whether memory can be read; return 1 if that is an error, else 0."""
    first = node.Get_rank() == 0
    where = f"between {node.Get_size()} ranks of {os.uname().nodename}"
    kinds = {reading.outcome for reading in readings}
    if not kinds:
        if first:
            say(rank, f"cross-memory attach not tried: one rank on {os.uname().nodename}")
        return 0
    if kinds == {0}:
        if first:
            say(rank, f"cross-memory attach ok {where}")
        return 0
    if first and len(kinds) == 1:
        say(rank, f"cross-memory attach does not work {where}: {outcome(kinds.pop())}")
    elif first:
        said = ", ".join(f"{part.reader} reads {part.owner}: {outcome(part.outcome)}" for part in readings)
        say(rank, f"cross-memory attach differs {where}: {said}")
    return int(required or len({reading.outcome for reading in readings}) > 1 or readings[0].outcome < 0)


def tell_trace(target: str, rank: int, ranks: int) -> None:
    """Tell whoever traces the launch (ch-launch --ch-trace) that MPI_Init is done, as launch/trace.py has it.

    target is ADDRESS[,ADDRESS...]:PORT/TOKEN. Like ch-run, this waits for nobody, and must not fail.
    """
    now = time.monotonic()
    offset = time.time() - now
    import socket  # noqa: PLC0415  only if there is somebody to tell

    try:
        addresses, _, rest = target.partition(":")
        port, _, token = rest.partition("/")
        who = f"{os.uname().nodename} {os.getpid()} {rank} {ranks}"
        text = f"{token} {who} {offset * 1e6:.0f} MPI_Init={now * 1e6:.0f}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            mouth.settimeout(0)
            for address in addresses.split(","):
                socket.inet_pton(socket.AF_INET, address)  # or it would be looked up as a name
                mouth.sendto(text.encode(), (address, int(port)))
    except (OSError, ValueError, OverflowError):
        return


def wrong_world(ranks: int, expected: "int | None", variables: "Any") -> str:
    """Return what is wrong with the size of the world; empty if nothing is."""
    if expected is not None:
        wrong = "" if ranks == expected else f"the world has {ranks} ranks, expected {expected}"
    else:
        wrong = ""
    name = next((name for name in WORLD_SIZES if variables.get(name, "").isdigit()), None)
    started = int(variables[name]) if name else 1
    if ranks == 1 and started > 1 and expected != 1:
        return f"singleton: {name} is {started}, but this rank is alone; it did not find its PMI server"
    return wrong


def run(mpi: "Any", options: argparse.Namespace) -> int:
    """Do all of it; return the exit code of this rank."""
    world = mpi.COMM_WORLD
    rank, ranks = world.Get_rank(), world.Get_size()
    if "CHLAUNCH_TRACE_TO" in os.environ:
        tell_trace(os.environ["CHLAUNCH_TRACE_TO"], rank, ranks)
    watch = Watch(rank, options.timeout, world.Abort)
    user_namespace = os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116
    say(rank, f"init ok {os.uname().nodename}, {ranks} ranks, userns {user_namespace}")
    if rank == 0:
        say(rank, " ".join(mpi.Get_library_version().splitlines()[0].split(",")[0].split()))
    wrong = wrong_world(ranks, options.expect, os.environ)
    if wrong:
        if rank == 0:
            say(rank, wrong)
        return 1
    sizes = [size for size in SIZES if size <= options.max_bytes] or [options.max_bytes]
    ring(world, sizes, watch)
    pairs(world, sizes, watch)
    watch.step("cross-memory attach")
    node = world.Split_type(mpi.COMM_TYPE_SHARED)
    code = report_cross_memory(node, rank, cross_memory(world, node), required=options.require_cma)
    watch.step("finalize")
    node.Free()
    world.Barrier()
    mpi.Finalize()
    say(rank, "finalize ok")
    return code


def main() -> int:
    """Parse the command line, start MPI, and end the whole job where a rank fails."""
    parser = argparse.ArgumentParser(prog="chlaunch.probe", description="Prove that an MPI job works.")
    parser.add_argument("--expect", type=int, metavar="N", help="fail unless the world has N ranks")
    parser.add_argument("--max-bytes", type=int, metavar="N", default=SIZES[-1], help="largest message")
    parser.add_argument("--require-cma", action="store_true", help="fail unless cross-memory attach works")
    parser.add_argument("--timeout", type=float, metavar="S", default=60, help="seconds a step may take")
    options = parser.parse_args()
    try:
        from mpi4py import MPI  # noqa: PLC0415  starts MPI
    except ImportError as error:
        os.write(2, f"chlaunch.probe: can't import mpi4py with {sys.executable}: {error}\n".encode())
        return 1
    try:
        return run(MPI, options)
    except Exception as error:  # noqa: BLE001  whatever it is, the other ranks must not wait for this one
        if isinstance(error, DifferenceError):
            say(MPI.COMM_WORLD.Get_rank(), str(error))
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
        return 1


if __name__ == "__main__":
    sys.exit(main())
