"""The runtime's tests run ch-run as alice on a machine of its own; no Slurm is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # tests are not a package

from runtime import TOOLS, Runtime  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machine import Machine

PROGRAMS = {"call": HERE, "deny": HERE, "peers": HERE, "storm": HERE.parent / "bench"}


@pytest.fixture(scope="session")
def runtime(machine: Machine, ch_run: Path, image_tiny: Path) -> Runtime:
    """Return ch-run and the small image on a machine."""
    machine.root(["mkdir", "-p", TOOLS])
    for program, directory in PROGRAMS.items():
        binary = machine.outside(f"{TOOLS}/{program}")
        subprocess.run(
            [
                "gcc",
                "-D_GNU_SOURCE",
                "-Wall",
                "-O2",
                "-static",
                "-o",
                str(binary),
                str(directory / f"{program}.c"),
            ],
            check=True,
        )
    return Runtime(machine, str(ch_run), str(image_tiny))


@pytest.fixture(scope="session")
def squashfs(runtime: Runtime) -> str:
    """Return the small image as a SquashFS file, as root's tools make it: all files are root's."""
    return runtime.squash("tiny.sqfs")


@pytest.fixture(autouse=True)
def no_findings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test during which a sanitized ch-run, or a keeper of one, reported something."""
    yield
    if not request.config.getoption("--sanitized") or "runtime" not in request.fixturenames:
        return
    machine: Machine = request.getfixturevalue("machine")
    places = (machine.outside("/tmp"), *(machine.outside(f"/home/{name}") for name in ("alice", "bob")))
    reports = [report for place in places for report in place.glob("sanitizer.*")]
    texts = [report.read_text() for report in reports]
    for report in reports:
        report.unlink()
    assert not texts, "\n".join(texts)
