"""ch-run on a machine, as the runtime's tests use it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

    from machine import Machine

TOOLS = "/tmp/tools"


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

    def squash(self, name: str, directory: str = "", options: str = "", user: str = "alice") -> str:
        """Make a SquashFS file of the image, or of another directory, in the user's home; return its path."""
        path = f"{self.machine.home(user)}/{name}"
        make = (
            f"mksquashfs {directory or self.image} {path} -comp zstd -Xcompression-level 1 -noappend -quiet"
        )
        self.machine.run(f"{make} -no-progress {options}", check=True, user=user, timeout=300)
        return path

    def servers(self) -> list[int]:
        """Return the PIDs of image servers and their keepers on the machine."""
        found = self.machine.run("pgrep -f '^squashfuse_ll|^ch-run-keeper'; pgrep -x ch-run-keeper")
        return sorted({int(word) for word in found.stdout.split()})

    def await_no_servers(self) -> None:
        """Wait until all are gone, which they are in a moment."""
        for _ in range(200):
            if not self.servers():
                return
            time.sleep(0.02)
        raise AssertionError(self.machine.run("ps axf").stdout)

    def copy_image(self, name: str, changes: str = "true", user: str = "alice") -> str:
        """Copy the image to the user's home, run shell `changes` in it, return its path."""
        path = f"{self.machine.home(user)}/{name}"
        self.machine.run(
            f"rm -rf {path} && cp -a {self.image} {path} && cd {path} && {changes}", check=True, user=user
        )
        return path
