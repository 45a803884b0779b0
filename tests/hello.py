#!/usr/bin/env python3
"""`make hello`: an ordinary user builds an MPI image and runs it, on a two-node Slurm that lives for that job."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests/cluster"))  # tests are not a package

from building import CH_IMAGE, EXAMPLE, kept_storage, network, outward, proxies  # noqa: E402
from cluster import Cluster  # noqa: E402
from images import ImageUnavailableError, cache_directory  # noqa: E402
from space import MachineError, UnavailableError  # noqa: E402

LAUNCH = CHECKOUT / ".venv/bin/ch-launch"
LAYOUT = ["-N2", "-n4", "--ntasks-per-node=2"]
PROBE = ["python3", "probe.py", "--expect=4", "--require-cma"]
SECONDS = 300


def hello() -> int:
    """Build the image, show the plan, and run it; return the exit code of what failed, or the job's."""
    with Cluster(2, reveal=[cache_directory()]) as cluster:
        storage = {"CH_IMAGE_STORAGE": kept_storage(cluster.machine)}
        # The image knows nothing of chlaunch: the probe is a file of the user's, where the job starts.
        shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside(cluster.home("alice") / "probe.py"))
        build = [CH_IMAGE, "build", *outward(cluster.machine), "-t", "demo", EXAMPLE]
        code = _show(cluster, build, {**storage, **proxies()}, net=network())
        launch = [[LAUNCH, *dry, *LAYOUT, "demo", "--", *PROBE] for dry in (["--ch-dry-run"], [])]
        for command in launch:
            code = code or _show(cluster, command, storage)
    return code


def _show(cluster: Cluster, command: list[object], env: dict[str, Any], net: str | None = None) -> int:
    """Show a command and run it; return its exit code."""
    sys.stdout.write(f"\n[alice@login ~]$ {shlex.join(map(str, command))}\n")
    sys.stdout.flush()
    process = cluster.popen(command, stdout=None, stderr=None, env=env, net=net)
    return process.wait(timeout=SECONDS)


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
