"""Where am I: from variables as launchers set them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from chlaunch import native, slurm
from chlaunch.errors import NativeError
from chlaunch.launch import context, starter
from chlaunch.launch.context import where

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("plain", 1)),
        ({"SLURM_JOB_ID": "7"}, ("allocation", 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "ENVIRONMENT": "BATCH"}, ("batch", 1)),
        (
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "4"},
            ("allocation", 1),
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ("step", 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}, ("step", 4)),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, ("mpirun", 4)),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, ("plain", 1)),
        ({"PMI_SIZE": "8", "PMI_RANK": "0"}, ("mpirun", 8)),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "OMPI_COMM_WORLD_SIZE": "8"}, ("mpirun", 8)),
    ],
)
def test_where(variables: dict[str, str], expected: tuple[str, int]) -> None:
    assert where(variables) == expected


def test_read(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "CONFIGURATIONS", ())
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(real)
    for name in ("srun", "mpirun", "ompi_info"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    here = context.read(
        {**environment, "PWD": str(tmp_path / "link"), "SLURM_MPI_TYPE": "pmi2", "TMPDIR": "/t"}
    )
    assert here == context.Context(
        ch_run=environment["CHLAUNCH_CH_RUN"],
        home=environment["HOME"],
        directory=str(tmp_path / "link"),
        tmpdir="/t",
        srun=str(tmp_path / "bin/srun"),
        mpirun=str(tmp_path / "bin/mpirun"),
        mpi_type="pmi2",
        uid=os.geteuid(),
        gid=os.getegid(),
        variables=here.variables,
    )
    assert here.variables["TMPDIR"] == "/t"
    here = context.read({**environment, "PWD": "/usr", "HOME": "/nowhere"})
    assert (here.directory, here.home) == (str(real), None)


def test_an_mpiexec_stands_in_for_an_mpirun(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin/mpiexec").write_text("#!/bin/sh\n")
    (tmp_path / "bin/mpiexec").chmod(0o755)
    assert context.read(environment).mpirun == str(tmp_path / "bin/mpiexec")


@pytest.mark.parametrize(
    ("text", "kind", "version"),
    [
        ("mpirun (Open MPI) 4.1.4\n\nReport bugs to ...", "mpirun", "4.1.4"),
        ("mpirun (Open MPI) 5.0.11rc1\n", "mpirun", "5.0.11"),
        (
            "HYDRA build details:\n    Version:                                 4.2.3\n    Release",
            "hydra",
            "4.2.3",
        ),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.19 Build 20260901 (id: 1)\n", "hydra", "2021.19"),
        ("mpirun 1.0\n", "", ""),
    ],
)
def test_what_an_mpirun_says_of_itself(text: str, kind: str, version: str) -> None:
    found = starter.understood("", text)
    assert (found.kind, found.version) == (kind, version)


def test_a_directory_that_was_removed(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert context.read(environment).directory is None


def test_ch_run_is_never_looked_for_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ch-run").write_text("#!/bin/sh\n")
    (tmp_path / "ch-run").chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda *_, **__: str(tmp_path / "scripts"))
    with pytest.raises(NativeError, match="can't find our ch-run") as caught:
        native.ch_run({"PATH": str(tmp_path)})
    assert "CHLAUNCH_CH_RUN" in caught.value.hint
    monkeypatch.setattr("sysconfig.get_path", lambda *_, **__: str(tmp_path))
    assert native.ch_run({}) == str(tmp_path / "ch-run")


def test_a_named_ch_run_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="not an executable file"):
        native.ch_run({"CHLAUNCH_CH_RUN": str(tmp_path)})
