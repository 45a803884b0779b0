#!/usr/bin/env python3
"""`make hello`: an ordinary user's MPI job from a container, on a two-node Slurm that lives for that job."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests/cluster"))  # tests are not a package

from cluster import Cluster  # noqa: E402
from images import ImageUnavailableError, cache_directory, image  # noqa: E402
from space import MachineError, UnavailableError  # noqa: E402

LAUNCH = CHECKOUT / ".venv/bin/ch-launch"
LAYOUT = ["-N2", "-n4", "--ntasks-per-node=2"]
PROBE = ["python3", "probe.py", "--expect=4", "--require-cma"]
SECONDS = 120


def hello() -> int:
    """Show the plan and run it; return the job's exit code."""
    directory = image("ompi4")
    with Cluster(2, reveal=[cache_directory()]) as cluster:
        # The image knows nothing of chlaunch: the probe is a file of the user's, where the job starts.
        shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside(cluster.home("alice") / "probe.py"))
        for dry in (["--ch-dry-run"], []):
            command = [str(LAUNCH), *dry, *LAYOUT, str(directory), "--", *PROBE]
            sys.stdout.write(f"\n[alice@login ~]$ {shlex.join(command)}\n")
            sys.stdout.flush()
            code = cluster.popen(command, stdout=None, stderr=None).wait(timeout=SECONDS)
            if code:
                break
    return code


def main() -> None:
    """Say hello, or what this host lacks for it."""
    try:
        sys.exit(hello())
    except (ImageUnavailableError, UnavailableError) as lack:
        sys.exit(f"hello: {lack}")
    except (MachineError, subprocess.TimeoutExpired) as failure:
        sys.exit(f"hello: {failure}")


if __name__ == "__main__":
    main()
