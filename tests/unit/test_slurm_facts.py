"""What Slurm's configuration says, by text that was recorded, and by a pyslurm that may do anything."""

from __future__ import annotations

import shutil
import sys
import time
import venv
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import SlurmError
from chlaunch.slurm import facts

if TYPE_CHECKING:
    from pathlib import Path

# Debian 12's Slurm 22.05.8, shortened
SHOWN = """\
Configuration data as of 2026-11-25T09:21:43
MpiDefault              = none
MpiParams               = (null)
PluginDir               = /usr/lib/x86_64-linux-gnu/slurm-wlm
SlurmdSpoolDir          = /var/spool/slurmd
SLURM_VERSION           = 22.05.8
TmpFS                   = /tmp

MPI Plugins Configuration:
PMIxCliTmpDirBase       = (null)
PMIxTimeout             = 300

Slurmctld(primary) at login is UP
"""
DOWN = "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)"

# The two interfaces that pyslurm has had.
OLD = """
class config:
    def get(self):
        return {"version": "22.05.8", "mpi_default": "none", "plugindir": "/plugins", "slurmd_spooldir": "/spool",
                "tmp_fs": "/tmp", "more": object()}
"""
NEW = """
class slurmctld:
    class Config:
        version, mpi_default, plugin_dirs = "22.05.8", "none", ["/plugins", "/more"]
        slurmd_spool_directory, temporary_filesystem = "/spool", "/tmp"
        class mpi_config:
            pmix_cli_tmp_dir_base = "/pmix"
        @classmethod
        def load(cls):
            print("words of a library", flush=True)
            return cls()
"""


def command(path: Path, text: str) -> str:
    """Make a program of shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def scontrol(tmp_path: Path, shown: str = SHOWN) -> str:
    """Make a scontrol that says what a real one said."""
    (tmp_path / "shown").write_text(shown)
    return command(
        tmp_path / "scontrol",
        f'if [ "$1" = --version ]; then echo slurm-wlm 22.05.8; else cat {tmp_path}/shown; fi',
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python of its own, into which a pyslurm can be put."""
    place = tmp_path_factory.mktemp("python")
    venv.create(place, symlinks=True)
    return place / "bin/python"


def install(python: Path, version: str, text: str) -> None:
    """Put a pyslurm of that version into a Python."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    for old in packages.glob("pyslurm*"):
        shutil.rmtree(old)
    (packages / "pyslurm").mkdir()
    (packages / "pyslurm/__init__.py").write_text(text)
    (packages / f"pyslurm-{version}.dist-info").mkdir()
    (packages / f"pyslurm-{version}.dist-info/METADATA").write_text(f"Name: pyslurm\nVersion: {version}\n")


def test_by_text(tmp_path: Path) -> None:
    found = facts.facts(scontrol(tmp_path), {})
    assert found == facts.Facts(
        version="22.05.8",
        mpi_default="none",
        plugin_directories=("/usr/lib/x86_64-linux-gnu/slurm-wlm",),
        spool="/var/spool/slurmd",
        tmp="/tmp",
        pmix_tmp="/tmp",
        origin="scontrol show config",
        passed="there is no pyslurm",
    )


def test_pmix_directory(tmp_path: Path) -> None:
    shown = SHOWN.replace("PMIxCliTmpDirBase       = (null)", "PMIxCliTmpDirBase       = /scratch")
    assert facts.facts(scontrol(tmp_path, shown), {}).pmix_tmp == "/scratch"
    assert facts.facts(scontrol(tmp_path, shown), {"SLURM_PMIX_TMPDIR": "/mine"}).pmix_tmp == "/mine"


@pytest.mark.parametrize("said", [DOWN, ""])
def test_no_controller(tmp_path: Path, said: str) -> None:
    with pytest.raises(SlurmError, match=r"connect failure|printed nothing") as caught:
        facts.facts(scontrol(tmp_path, said), {})
    assert "scontrol ping" in caught.value.hint


def test_no_scontrol(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="can't execute"):
        facts.facts(str(tmp_path / "scontrol"), {})


@pytest.mark.parametrize(
    ("text", "plugins", "pmix"), [(OLD, ("/plugins",), "/tmp"), (NEW, ("/plugins", "/more"), "/pmix")]
)
def test_by_pyslurm(tmp_path: Path, python: Path, text: str, plugins: tuple[str, ...], pmix: str) -> None:
    install(python, "22.5.1", text)
    found = facts.facts(scontrol(tmp_path, "never asked"), {}, str(python))
    assert (found.version, found.mpi_default, found.spool, found.tmp) == ("22.05.8", "none", "/spool", "/tmp")
    assert (found.plugin_directories, found.pmix_tmp) == (plugins, pmix)
    assert (found.origin, found.passed) == ("pyslurm 22.5.1", "")


@pytest.mark.parametrize(
    ("version", "text", "passed"),
    [
        ("22.5.1", "import time; time.sleep(60)", "gave no answer in 1 s"),
        ("22.5.1", "import os; os._exit(3)", "ended its process without an answer"),
        ("22.5.1", "raise ImportError('libslurm.so.38')", "ended its process without an answer"),
        ("22.5.1", "import os; print('{', flush=True); os._exit(0)", "ended its process without an answer"),
        ("22.5.1", "", "ended its process without an answer"),
        ("24.11.0", "import os; os._exit(3)", "pyslurm 24.11.0 is not for Slurm 22.05.8"),
    ],
)
def test_a_pyslurm_that_does_not_tell(
    tmp_path: Path, python: Path, version: str, text: str, passed: str
) -> None:
    install(python, version, text)
    start = time.monotonic()
    found = facts.facts(scontrol(tmp_path), {}, str(python), deadline=1)
    assert time.monotonic() - start < 5
    assert passed in found.passed
    assert (found.origin, found.version) == ("scontrol show config", "22.05.8")


def test_pyslurm_stays_outside(tmp_path: Path, python: Path) -> None:
    install(python, "22.5.1", OLD)
    facts.facts(scontrol(tmp_path), {}, str(python))
    assert "pyslurm" not in sys.modules
