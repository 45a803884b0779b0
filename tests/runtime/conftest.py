"""The runtime's tests run ch-run as alice on a machine of its own; no Slurm is needed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from machine import Machine

HERE = Path(__file__).parent
TOOLS = "/tmp/tools"
PROGRAMS = {"deny": HERE, "peers": HERE, "storm": HERE.parent / "bench"}


@dataclass(frozen=True)
class Runtime:
    """ch-run on a machine, with an image and the tests' own programs."""

    machine: Machine
    ch_run: str
    image: str

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `ch-run WORDS…` as alice (or `user`)."""
        return self.machine.run([self.ch_run, *words], **options)

    def sh(self, script: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the image; `words` are options of ch-run."""
        return self(*words, self.image, "--", "sh", "-c", script, **options)

    def output(self, script: str, *words: str, **options: Any) -> str:
        """Return what the script prints in the image, which must succeed and complain of nothing."""
        result = self.sh(script, *words, **options)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout.strip()

    def shell(self, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the machine: $CH_RUN, $IMAGE and $TOOLS are set."""
        env = {"CH_RUN": self.ch_run, "IMAGE": self.image, "TOOLS": TOOLS, **options.pop("env", {})}
        return self.machine.run(["bash", "-c", script], env=env, **options)

    def copy_image(self, name: str, changes: str = "true", user: str = "alice") -> str:
        """Copy the image to the user's home, run shell `changes` in it, return its path."""
        path = f"{self.machine.home(user)}/{name}"
        self.machine.run(f"rm -rf {path} && cp -a {self.image} {path} && cd {path} && {changes}", check=True, user=user)
        return path


@pytest.fixture(scope="session")
def runtime(machine: Machine, ch_run: Path, image_tiny: Path) -> Runtime:
    """Return ch-run and the small image on a machine."""
    machine.root(["mkdir", "-p", TOOLS])
    for program, directory in PROGRAMS.items():
        binary = machine.outside(f"{TOOLS}/{program}")
        subprocess.run(
            ["gcc", "-D_GNU_SOURCE", "-Wall", "-O2", "-static", "-o", str(binary), str(directory / f"{program}.c")],
            check=True,
        )
    return Runtime(machine, str(ch_run), str(image_tiny))
