#!/usr/bin/env python3
"""Kill ch-image again and again, for SOAK_SECONDS (600): `make soak`. Its storage must be whole at any time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "tests" / name) for name in ("cluster", "images", "registry/servers")]

from images import cache_directory, image  # noqa: E402
from machine import Machine  # noqa: E402
from made import layout  # noqa: E402
from served import served  # noqa: E402

PYTHON = CHECKOUT / ".venv/bin/python"
KILLS = CHECKOUT / "tests/images/kills.py"

# How many pulls are killed in a second or so, each in storage of its own.
PULLS = 4


def main() -> int:
    """Soak; 1 if something was found."""
    seconds = int(os.environ.get("SOAK_SECONDS") or 600)
    with ExitStack() as stack:
        machine = stack.enter_context(Machine(reveal=[cache_directory()]))
        home = machine.outside("/home/alice")
        with tarfile.open(home / "a.tar", "w") as tar:
            tar.add(image("tiny"), ".")
        base = (home / "a.tar").read_bytes()
        for tag, more in (("1", {"opt/x": b"x" * 100_000, "usr/.wh.bin": b""}), ("2", {"opt/y": b"y"})):
            layout(home / "layout", [base, more], name=tag)
        machine.root("chown -R alice: /home/alice")
        server = stack.enter_context(served(machine, "registry", 5000))
        for tag in ("1", "2"):
            words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:layout:{tag}"]
            machine.run([*words, f"docker://{server.host}/small:{tag}"], check=True)
        small, workers = f"{server.host}/small", 2 * (os.cpu_count() or 1)
        kinds: tuple[tuple[object, ...], ...] = (
            ("pulls", seconds * PULLS // 2, workers, small),
            ("all", seconds // 2, workers, small, f"{server.host}/pushed:1"),
        )
        for kind in kinds:
            done = machine.run([PYTHON, KILLS, *kind], timeout=4 * seconds + 600)
            sys.stdout.write(f"{kind[0]}: killed {done.stdout}")
            if done.returncode:
                sys.stderr.write(done.stderr)
                keep = CHECKOUT / "build/soak"
                shutil.rmtree(keep, ignore_errors=True)
                subprocess.run(["cp", "-a", home, keep], check=True)  # to be looked at
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
