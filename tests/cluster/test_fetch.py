"""An image in a registry, for a whole job: fetched once, by one process, and not at all the next time."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import plugin
import pytest
from cluster import Cluster
from images import cache_directory
from test_launch import PROBE, assert_world, with_probe

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

PORT = 5000
LOG = "/home/alice/registry/log"
FETCHED = "/home/alice/.cache/chlaunch/fetched"

CONFIG = {
    "version": "0.1",
    "storage": {"filesystem": {"rootdirectory": "/home/alice/registry/data"}},
    "http": {"addr": f"127.0.0.1:{PORT}", "secret": "of the tests"},
    "log": {"accesslog": {"disabled": False}, "level": "info"},
}
SERVE = f"cd registry && OTEL_TRACES_EXPORTER=none exec docker-registry serve config.yml >{LOG} 2>&1"


@pytest.fixture(scope="module")
def slurm(
    may_lack: Callable[[], AbstractContextManager[None]], image_ompi4: Path, ch_run: Path
) -> Iterator[Cluster]:
    """Return four nodes with the plugin, and a registry on the login node that has an MPI image."""
    with may_lack():
        cluster = Cluster(4, reveal=[cache_directory()], files={"plugstack.conf": plugin.line()})
        cluster.__enter__()
    try:
        with_probe(cluster)
        cluster.outside("/home/alice/registry").mkdir()
        cluster.outside("/home/alice/registry/config.yml").write_text(json.dumps(CONFIG))
        cluster.root(None, "chown -R alice: /home/alice/registry")
        registry = cluster.popen(["sh", "-c", SERVE])
        await_registry(cluster)
        image = [ch_run.with_name("ch-image"), "push", f"--image={image_ompi4}", f"localhost:{PORT}/mpi:1"]
        cluster.run(image, check=True, timeout=120)
        yield cluster
        registry.terminate()
        registry.wait()
    finally:
        cluster.__exit__(None, None, None)


def await_registry(cluster: Cluster) -> None:
    """Wait until the registry answers."""
    for _ in range(500):
        if cluster.run(["curl", "-sf", f"http://localhost:{PORT}/v2/"]).returncode == 0:
            return
        time.sleep(0.02)
    raise AssertionError(cluster.run(["cat", LOG]).stdout)


def downloads(cluster: Cluster) -> int:
    """Return how often a blob was asked for, the configuration's apart, which is small."""
    log = cluster.run(["cat", LOG], check=True).stdout
    sizes = [int(size) for size in re.findall(r'"GET /v2/mpi/blobs/\S* HTTP/1.1" 20[06] (\d+)', log)]
    return sum(size > 100_000 for size in sizes)


def srun(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the probe in the registry's image."""
    return cluster.run(["srun", *words, f"--ch-image=localhost:{PORT}/mpi:1", *PROBE], timeout=180)


@pytest.mark.pmix
def test_one_pull_for_all(slurm: Cluster) -> None:
    before = downloads(slurm)
    jobs = [
        slurm.popen(["srun", "-N4", "-n16", f"--ch-image=localhost:{PORT}/mpi:1", "--overcommit", *PROBE])
        for _ in range(2)
    ]
    for job in jobs:
        out, said = job.communicate(timeout=180)
        assert job.returncode == 0, said
        assert '"size": 16' in out
    assert downloads(slurm) - before == 1


@pytest.mark.pmix
def test_the_second_job_starts_at_once(slurm: Cluster) -> None:
    first = srun(slurm, "-N1", "-n2")
    before = downloads(slurm)
    second = srun(slurm, "-N2", "-n2")
    assert_world(second, {"n1": 1, "n2": 1})
    assert "writing" not in second.stderr
    assert downloads(slurm) == before
    assert first.returncode == 0
