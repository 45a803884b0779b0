"""Fixtures for tests that need no machine: an image of a few files, and an environment to launch it from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a directory with what ch-launch looks at in a Debian image that has Open MPI 4.1.4."""
    root = tmp_path / "image"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    (libraries / "openmpi/lib").mkdir(parents=True)
    (libraries / "openmpi/lib/libmpi.so.40.30.4").write_bytes(b"\0Open MPI v%d.%d.%d\0\0v4.1.4\0")
    (libraries / "libmpi.so.40").symlink_to("openmpi/lib/libmpi.so.40.30.4")
    for name in ("dev", "proc", "sys", "usr/bin", "etc/alternatives"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/mpirun.openmpi").touch()
    (root / "etc/alternatives/mpirun").symlink_to("/usr/bin/mpirun.openmpi")
    (root / "usr/bin/mpirun").symlink_to("/etc/alternatives/mpirun")
    (root / "lib").symlink_to("usr/lib")
    return root


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a user on a machine without launchers, whose ch-run is a file that does nothing."""
    ch_run = tmp_path / "ch-run"
    ch_run.write_text("#!/bin/sh\n")
    ch_run.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "HOME": str(home), "CHLAUNCH_CH_RUN": str(ch_run)}
