"""What builds cost: beside Charliecloud's where nothing is to be done and where all is, and for each step."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stopwatch import CHECKOUT, Bench, Row, alternate, compare

from images import cache_directory, image  # isort: skip  stopwatch says where it is

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CACHED_RUNS, COLD_RUNS, STEP_RUNS = 11, 3, 9

CH_IMAGE = str(CHECKOUT / ".venv/bin/ch-image")
PEER_IMAGE = "/usr/bin/ch-image"

# To Charliecloud: with all cached, and with nothing. To ch-image list. For a step: milliseconds, and those in a
# large image to those in a small one.
CACHED, COLD, LIST, STEP, FLAT = 0.3, 0.7, 2.5, 60.0, 1.5

# A package that needs no other, from a file, so that no mirror is measured. Charliecloud's RUN has the host's
# /tmp, and apt without --force asks for another user.
TEN = """\
FROM debian:bookworm
ARG WHO=bench
ENV PLACE=/opt/bench
WORKDIR /opt/bench
COPY hello.deb /opt/bench/
RUN apt-get -o APT::Sandbox::User=root install --yes /opt/bench/hello.deb
RUN echo one >one
COPY file file
RUN echo ${WHO} >two
RUN cat one two >three
"""
STEPS = 10


def bench_build(bench: Bench) -> list[Row]:
    """Return the rows."""
    home = bench.cluster.home("alice")
    _prepare(bench, f"{home}/build")
    ours = _build(bench, CH_IMAGE, f"{home}/build/ours", f"{home}/build/ten")
    peer = _build(bench, PEER_IMAGE, f"{home}/build/peer", f"{home}/build/ten")
    cold = alternate(COLD_RUNS, {"ours": ours("--rebuild"), "Charliecloud": peer("--rebuild")})
    cached = alternate(
        CACHED_RUNS,
        {
            "ours": ours(),
            "Charliecloud": peer(),
            "list": lambda: _milliseconds(bench, f"{home}/build/ours", [CH_IMAGE, "list"]),
        },
    )
    cold["none"], cached["none"] = [0.0] * COLD_RUNS, [0.0] * CACHED_RUNS
    return [
        compare("ch-image build, 10 cached / Charliecloud", cached, ("ours", "Charliecloud"), "none", CACHED),
        compare("ch-image build, 10 cached / ch-image list", cached, ("ours", "list"), "none", LIST),
        compare("ch-image build, 10 with apt / Charliecloud", cold, ("ours", "Charliecloud"), "none", COLD),
        _changed_row(bench, f"{home}/build"),
        *_step_rows(bench, f"{home}/build"),
    ]


def _prepare(bench: Bench, place: str) -> None:
    """Make alice's storages and what is to be built."""
    bench.cluster.run(["mkdir", "-p", f"{place}/ten"], node=bench.node, check=True)
    # Charliecloud's cache is a Git repository.
    bench.cluster.outside("/home/alice/.gitconfig").write_text(
        "[user]\nname = alice\nemail = alice@localhost\n"
    )
    files = {"Dockerfile": TEN.encode(), "file": b"x\n", "hello.deb": _package("hello")}
    for name, content in files.items():
        bench.cluster.outside(f"{place}/ten/{name}").write_bytes(content)
    images = [
        (CH_IMAGE, "ours", "debian", "debian:bookworm"),
        (PEER_IMAGE, "peer", "debian", "debian:bookworm"),
    ]
    images += [(CH_IMAGE, "ours", "debian", "small"), (CH_IMAGE, "ours", "wheels", "large")]
    for command, storage, root, name in images:
        words = [command, "import", str(image(root)), name]
        env = {"CH_IMAGE_STORAGE": f"{place}/{storage}"}
        bench.cluster.run(words, node=bench.node, check=True, timeout=600, env=env)


def _package(name: str) -> bytes:
    """Return a package of Debian, which is kept beside the images."""
    kept = cache_directory() / f"{name}.deb"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache_directory()) as directory:
            subprocess.run(["apt-get", "download", "-qq", name], check=True, cwd=directory)
            (found,) = Path(directory).glob("*.deb")
            found.rename(kept)
    return kept.read_bytes()


def _build(bench: Bench, command: str, storage: str, context: str) -> Callable[..., Callable[[], float]]:
    """Return a function that returns a measure of builds with some options."""

    def with_options(*options: str) -> Callable[[], float]:
        return lambda: _milliseconds(bench, storage, [command, "build", *options, "-t", "bench", context])

    return with_options


def _milliseconds(bench: Bench, storage: str, words: Sequence[str]) -> float:
    """Return how long a command takes, with what it says thrown away."""
    line = f"CH_IMAGE_STORAGE={storage} exec {shlex.join(words)} >/dev/null 2>&1"
    return bench.milliseconds(1, ["/bin/sh", "-c", line])


def _changed_row(bench: Bench, place: str) -> Row:
    """Return how many of ten instructions are done again when the ninth has changed."""
    dockerfile = bench.cluster.outside(f"{place}/ten/Dockerfile")
    dockerfile.write_text(TEN.replace("${WHO} >two", f"{os.getpid()} >two"))
    words = [CH_IMAGE, "build", "-t", "bench", f"{place}/ten"]
    env = {"CH_IMAGE_STORAGE": f"{place}/ours"}
    said = bench.cluster.run(words, node=bench.node, check=True, env=env).stderr
    done = sum(line.lstrip("0123456789 ").startswith(".") for line in said.splitlines())
    return Row(
        "ch-image build: steps done when the 9th of 10 changed", done, 2, done, "steps", 1, 2, done, done
    )


def _step_rows(bench: Bench, place: str) -> list[Row]:
    """Return what a RUN that writes a file costs: in an image of 600 MB, and over one of 130 MB."""

    def measure(base: str, steps: int) -> Callable[[], float]:
        text = "".join([f"FROM {base}\n", *(f"RUN echo {number} >/made\n" for number in range(steps))])
        context = f"{place}/{base}-{steps}"
        bench.cluster.run(["mkdir", "-p", context], node=bench.node, check=True)
        bench.cluster.outside(f"{context}/Dockerfile").write_text(text)
        return _build(bench, CH_IMAGE, f"{place}/ours", context)("--rebuild")

    times = alternate(
        STEP_RUNS,
        {f"{base} {steps}": measure(base, steps) for base in ("small", "large") for steps in (1, 1 + STEPS)},
    )
    share = {
        base: [
            (many - one) / STEPS
            for many, one in zip(times[f"{base} {1 + STEPS}"], times[f"{base} 1"], strict=True)
        ]
        for base in ("small", "large")
    }
    middle = round(statistics.median(share["large"]), 3)
    deciles = [round(value, 3) for value in statistics.quantiles(share["large"], n=10)]
    name = "ch-image build: ms for a step in a large image"
    return [
        Row(name, middle, STEP, middle, "ms", STEP_RUNS, STEP, deciles[0], deciles[-1]),
        compare(
            "ch-image build: a step in a large image / in a small one",
            {**share, "none": [0.0] * STEP_RUNS},
            ("large", "small"),
            "none",
            FLAT,
        ),
    ]
