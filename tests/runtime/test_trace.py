"""ch-run --trace: what a rank tells of its start, and that it waits for nobody."""

from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtime import Runtime

TOKEN = "0123456789abcdef"  # noqa: S105  not a secret
RECORD = re.compile(r"(\w+) (\S+) (\d+) (\S+) (\S+) (-?\d+)((?: \w+=\d+)+)")
MAKER = ["begun", "waited", "entered", "mounted", "joined", "exec"]

# Hears until a second datagram of the same sender has come, or for too long; then shows all.
LISTEN = """
import socket, subprocess, sys
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("", 0))
ear.settimeout(5)
port = str(ear.getsockname()[1])
done = subprocess.run([word.replace("PORT", port) for word in sys.argv[2:]])
for _ in range(int(sys.argv[1])):
    print(ear.recv(2000).decode())
ear.settimeout(0)
try:
    print("more:", ear.recv(2000))
except BlockingIOError:
    sys.exit(done.returncode)
"""


def records(
    runtime: Runtime, count: int, *words: str, env: dict[str, str] | None = None
) -> list[re.Match[str]]:
    """Run ch-run with a listener at PORT; return the records that came, which must be so many."""
    result = runtime.machine.run(["python3", "-c", LISTEN, str(count), runtime.ch_run, *words], env=env)
    assert result.returncode == 0, result.stderr
    found = [RECORD.fullmatch(line) for line in result.stdout.splitlines()]
    assert len(found) == count
    return [match for match in found if match]


def points(record: re.Match[str]) -> dict[str, int]:
    """Return the times in a record."""
    return {name: int(time) for name, _, time in (word.partition("=") for word in record[7].split())}


def test_who_tells_what(runtime: Runtime) -> None:
    word = f"--trace=127.0.0.1:PORT/{TOKEN}"
    (record,) = records(runtime, 1, word, "--join-tag=t", runtime.image, "--", "true")
    assert (record[1], record[2], record[4], record[5]) == (TOKEN, "login", "-", "-")
    found = points(record)
    assert list(found) == MAKER
    assert list(found.values()) == sorted(found.values())
    assert found["exec"] - found["begun"] < 5_000_000
    assert abs(found["begun"] + int(record[6]) - time.time_ns() // 1000) < 10_000_000


def test_phases_that_there_are_not(runtime: Runtime, squashfs: str) -> None:
    word = f"--trace=127.0.0.1:PORT/{TOKEN}"
    for words in ((runtime.image,), (squashfs,), ("--write-fake-scope=rank", runtime.image)):
        (record,) = records(runtime, 1, word, *words, "--", "true")
        assert list(points(record)) == ["begun", "entered", "mounted", "exec"]
    runtime.await_no_servers()


def test_a_joiner(runtime: Runtime) -> None:
    holder = runtime.machine.popen(
        [runtime.ch_run, "--join-tag=held", runtime.image, "--", "sh", "-c", "echo; sleep 60"]
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        word = f"--trace=127.0.0.1:PORT/{TOKEN}"
        (record,) = records(runtime, 1, word, "--join-tag=held", runtime.image, "--", "true")
        assert list(points(record)) == ["begun", "waited", "joined", "exec"]
        runtime.machine.run(["pkill", "-x", "sleep"], check=True)


@pytest.mark.parametrize(
    ("variables", "rank", "size"),
    [
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}, "3", "8"),
        ({"PMIX_RANK": "5"}, "5", "-"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_PROCID": "0"}, "1", "2"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "SLURM_PROCID": "0"}, "1", "2"),
        ({"SLURM_PROCID": "3 x", "PMIX_RANK": "-1"}, "-", "-"),
        ({"SLURM_PROCID": "9" * 10, "SLURM_STEP_NUM_TASKS": "1"}, "-", "-"),
        ({"SLURM_PROCID": "9" * 9, "SLURM_STEP_NUM_TASKS": ""}, "9" * 9, "-"),
    ],
)
def test_ranks(runtime: Runtime, variables: dict[str, str], rank: str, size: str) -> None:
    words = (f"--trace=127.0.0.1:PORT/{TOKEN}", "--unset-env=*", runtime.image, "--", "/bin/true")
    (record,) = records(runtime, 1, *words, env=variables)
    assert (record[4], record[5]) == (rank, size)


def test_every_address_is_told(runtime: Runtime) -> None:
    """The second is a broadcast address, to which nothing may be sent."""
    word = f"--trace=127.0.0.1,255.255.255.255,127.0.0.2:PORT/{TOKEN}"
    records(runtime, 2, word, runtime.image, "--", "true")


def test_nobody_is_waited_for(runtime: Runtime) -> None:
    """Not where there is no way, nor where nobody listens, nor where no host answers."""
    wire = "link add hole type veth peer name end\nlink set end up\nlink set hole up\naddress add 192.0.2.9/24 dev hole"
    runtime.machine.root(f"ip -batch - <<END\n{wire}\nEND")
    try:
        script = "; ".join(
            shlex.join([runtime.ch_run, f"--trace={address}:9/{TOKEN}", runtime.image, "--", "echo", "ran"])
            for address in ("203.0.113.1", "127.0.0.1", "192.0.2.1", ",".join(["192.0.2.1"] * 8))
        )
        began = time.monotonic()
        result = runtime.machine.run(script)
        assert time.monotonic() - began < 1
    finally:
        runtime.machine.root("ip link delete hole")
    assert (result.stdout, result.stderr, result.returncode) == ("ran\n" * 4, "", 0)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:9",
        "127.0.0.1:9/",
        "127.0.0.1:9/xyz",
        f"127.0.0.1:9/{'a' * 65}",
        "127.0.0.1:0/a",
        "127.0.0.1:65536/a",
        "127.0.0.1:99999999999999999999/a",
        "127.0.0.1:+9/a",
        "localhost:9/a",
        ":9/a",
        ",127.0.0.1:9/a",
        "127.0.0.1,:9/a",
        "::1:9/a",
        "127.0.0.1/a:9",
        f"{'1' * 100}:9/a",
        f"{','.join(['127.0.0.1'] * 9)}:9/a",
    ],
)
def test_refused(runtime: Runtime, target: str) -> None:
    result = runtime(f"--trace={target}", runtime.image, "--", "true")
    assert result.returncode == 64
    assert f"--trace: not ADDRESS[,ADDRESS…]:PORT/TOKEN: {target}" in result.stderr


def test_a_failing_command_is_told_too(runtime: Runtime) -> None:
    script = (
        f"{shlex.quote(runtime.ch_run)} --trace=127.0.0.1:$1/{TOKEN} {runtime.image} -- no-such; test $? = 49"
    )
    result = runtime.machine.run(["python3", "-c", LISTEN, "1", "sh", "-c", script, "sh", "PORT"])
    assert result.returncode == 0, result.stderr
    assert "error: can't exec" in result.stderr
    assert RECORD.fullmatch(result.stdout.strip())
