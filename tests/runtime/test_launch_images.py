"""ch-launch starts a command in images of each kind, and its options reach the container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from runtime import Runtime

WORDS = ("directory", "image.sqfs", "./image.sqfs", "local:1", "site/app:1")


@pytest.fixture(scope="module", autouse=True)
def images(runtime: Runtime) -> None:
    """Make an image with an Open MPI whose mpirun starts one rank; in storage it has two names."""
    changes = "printf '#!/bin/sh\\nexec \"$@\"\\n' >usr/bin/mpirun && chmod +x usr/bin/mpirun"
    library = "mkdir -p usr/lib && printf '\\0Open MPI v%%d.%%d.%%d\\0\\0v4.1.4\\0' >usr/lib/libmpi.so.40"
    runtime.copy_image("directory", f"{changes} && {library}")
    runtime.machine.run(
        """
        set -e
        mksquashfs directory image.sqfs -quiet -noappend >mksquashfs.log 2>&1
        mkdir -p named/images/local+1 named/images/site%app+1 named/l
        cp -a directory named/l/1
        for name in local+1 site%app+1; do echo 1 >named/images/$name/layers; done
        """,
        check=True,
    )


def launch(runtime: Runtime, ch_launch: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ch-launch with the image's own mpirun."""
    return runtime.machine.run([ch_launch, "--ch-launcher=guest", "--ch-storage=named", *words])


@pytest.mark.parametrize("word", WORDS)
def test_kinds(runtime: Runtime, ch_launch: Path, word: str) -> None:
    result = launch(runtime, ch_launch, word, "--", "sh", "-c", "touch /x; pwd; ls /usr/bin/mpirun")
    assert result.stdout == "/home/alice\n/usr/bin/mpirun\n"
    assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("word", WORDS)
def test_options(runtime: Runtime, ch_launch: Path, word: str) -> None:
    runtime.machine.run("mkdir -p data && echo content >data/file", check=True)
    script = (
        "touch /x && cat /ro/file && ls -A /tmp && chown 12:34 /ro/file && echo $A && df -k / | tail -n 1"
    )
    options = (
        *("--ch-write-fake=9m", "--ch-private-tmp", "--ch-seccomp", "--ch-bind-ro=data:/ro"),
        *("--ch-bind-try=/no/where", "--ch-env=A=$HOME", "--ch-fuse-single"),
    )
    result = launch(runtime, ch_launch, *options, word, "--", "sh", "-c", script)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split()[:4] == ["content", "$HOME", "chlaunch", str(9 * 1024)]


def test_what_can_not_be_written(runtime: Runtime, ch_launch: Path) -> None:
    for word in WORDS[1:]:
        result = launch(runtime, ch_launch, "--ch-write", word, "--", "true")
        assert result.returncode == 31
        assert "error: can't write to a" in result.stderr
    assert launch(runtime, ch_launch, "--ch-write", "directory", "--", "touch", "/x").returncode == 0
    assert runtime.machine.run("rm directory/x").returncode == 0
