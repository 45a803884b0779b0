"""Containers that are really entered: whether our ch-run works, and ranks read each other's memory.

What is measured is what MPI libraries do (cross-memory attach, process_vm_readv(2)), between two processes
that are to each other what ranks are: neither is the other's ancestor, and both have executed their program
after they entered. The program is ch-run itself, bound into the container: it is there, is static, and needs
nothing of the image.
"""

import errno
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chlaunch import native
from chlaunch.doctor.rows import Patient, Row, fine, problem, warning
from chlaunch.launch.elf import read_elf
from chlaunch.rootfs import NEEDED, open_image

# Seconds. The peers themselves give up on each other after 5.
DEADLINE = 10.0

# What the minimal image has: what ch-run binds over (rootfs.NEEDED), and /tmp.
DIRECTORIES = ("tmp", *(path.lstrip("/") for path in NEEDED))

_ANSWER = re.compile(r"^read=([0-9]+) dumpable=([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What a peer said. error: number of reading the other's memory, 0 if it could; dumpable: see prctl(2).

    complaint: what ch-run said instead, with its exit code.
    """

    error: int = 0
    dumpable: int = 1
    complaint: str = ""


def container(patient: Patient) -> list[Row]:
    """Run our ch-run in a container that ch-run makes."""
    ch_run = native.ch_run(patient.environment)
    place = Path(patient.directory, "container")
    image = minimal_image(place, ch_run)
    start = time.monotonic()
    done = subprocess.run(
        [*_enter(ch_run, place, image), "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE,
        env=dict(patient.environment),
    )
    took = (time.monotonic() - start) * 1000
    if done.returncode == 0:
        return [
            fine("ch-run", f"{ch_run}, version {done.stdout.strip()}: entered a container in {took:.0f} ms")
        ]
    message, hint = complaint(done.stderr, done.returncode)
    if not os.access(ch_run, os.R_OK):  # its /proc/self belongs to root then (proc(5), prctl PR_SET_DUMPABLE)
        hint = f"chmod a+r {ch_run}: a program that may not be read can't map its IDs"
    return [problem("ch-run", f"{ch_run}: {message}", hint)]


def joined(patient: Patient) -> list[Row]:
    """Measure between ranks that share a container."""
    tag = f"--join-tag=ch-doctor-{os.getpid()}"
    return [judge_joined(_measure(patient, "joined", [tag]))]


def apart(patient: Patient) -> list[Row]:
    """Measure between ranks that have a container each."""
    return [judge_apart(_measure(patient, "apart", []))]


def minimal_image(place: Path, ch_run: str) -> str:
    """Return the image to use where none is given: an empty one made in place, which is made too.

    A ch-run that is not static can't be run in that; then it is the host's own root.
    """
    place.mkdir()
    (place / "ch-run").touch()  # where the program is bound
    try:
        with Path(ch_run).open("rb") as file:
            elf = read_elf(file)
    except PermissionError:  # it can be run all the same, and what comes of that is told
        elf = None
    if elf is not None and elf.interpreter:
        return "/"
    for name in DIRECTORIES:
        (place / "image" / name).mkdir(parents=True)
    return str(place / "image")


def _enter(ch_run: str, place: Path, image: str, options: Sequence[str] = ()) -> list[str]:
    """Return the words that run the program, our ch-run, in a container."""
    binds = [f"--bind={place}", f"--bind-ro={ch_run}:{place}/ch-run", f"--cd={place}"]
    return [ch_run, "--quiet", *options, *binds, image, "--", f"{place}/ch-run"]


def _measure(patient: Patient, name: str, options: list[str]) -> list[Outcome]:
    """Return what two peers say, each of the other."""
    ch_run = native.ch_run(patient.environment)
    place = Path(patient.directory, name)
    image = minimal_image(place, ch_run)
    if patient.image:
        image = open_image(patient.image, patient.storage).path
        options = [*options, f"--storage={patient.storage}"]
    peers = [
        subprocess.Popen(
            [*_enter(ch_run, place, image, options), f"--read-peer={own}:{other}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(patient.environment),
        )
        for own, other in (("one", "two"), ("two", "one"))
    ]
    return [_outcome(peer) for peer in peers]


def _outcome(peer: "subprocess.Popen[str]") -> Outcome:
    """Return what a peer says."""
    try:
        stdout, stderr = peer.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        peer.kill()
        return Outcome(complaint=f"no answer in {DEADLINE:g} s")
    found = _ANSWER.search(stdout)
    if found is None:
        return Outcome(complaint="; ".join(filter(None, complaint(stderr, peer.returncode))))
    return Outcome(int(found[1]), int(found[2]))


def complaint(stderr: str, code: int) -> tuple[str, str]:
    """Return message and hint in what ch-run said; its exit code if that is all there is."""
    said = [re.sub(r"^ch-run\[[0-9]+\]: ", "", line) for line in stderr.splitlines()]
    message = next((line.removeprefix("error: ") for line in said if line.startswith("error: ")), "")
    hint = next((line.removeprefix("hint: ") for line in said if line.startswith("hint: ")), "")
    return message or (said[-1] if said else f"it ended with {code}"), hint


def _worst(outcomes: list[Outcome]) -> Outcome:
    """Return what is to be spoken of: a complaint, else a failure, else a success."""
    return max(outcomes, key=lambda outcome: (bool(outcome.complaint), outcome.error != 0))


def _missed(name: str, outcome: Outcome) -> Row:
    """Return the row for what could not be measured."""
    said = outcome.complaint or f"the two did not meet: {os.strerror(outcome.error)}"
    return problem(name, f"not measured: {said}", "see the row ch-run; else please report this")


def judge_joined(outcomes: list[Outcome]) -> Row:
    """Return what there is to say of ranks that share a container."""
    name = "memory, joined"
    outcome = _worst(outcomes)
    if outcome.complaint or outcome.error == errno.ETIMEDOUT:
        return _missed(name, outcome)
    if not outcome.error:
        return fine(name, "ranks read each other's memory (cross-memory attach)")
    said = (
        f"ranks can't read each other's memory: {os.strerror(outcome.error)}; large messages: slow, or fail"
    )
    if not outcome.dumpable:
        return problem(
            name, f"{said}; the program may not be read", "chmod a+r: ch-run, as every program of MPI ranks"
        )
    if outcome.error == errno.ENOSYS:
        remedy = "a seccomp filter denies process_vm_readv(2): start the outer container with more rights"
        return problem(name, said, remedy)
    remedy = "see the row Yama; a security module or an outer container may forbid it: dmesg"
    return problem(name, said, remedy)


def judge_apart(outcomes: list[Outcome]) -> Row:
    """Return what there is to say of ranks that have a container each: the kernel keeps them apart."""
    name = "memory, not joined"
    outcome = _worst(outcomes)
    if outcome.complaint or outcome.error == errno.ETIMEDOUT:
        return _missed(name, outcome)
    if not outcome.error:
        return fine(name, "ranks read each other's memory, although each has a container of its own")
    if outcome.error == errno.EPERM:
        said = "ranks can't read each other's memory, as the kernel has it between user namespaces"
        return fine(name, f"{said}: keep to ch-launch, or ch-run --join")
    said = f"ranks can't read each other's memory: {os.strerror(outcome.error)}"
    return warning(name, said, "keep to ch-launch, or ch-run --join")
