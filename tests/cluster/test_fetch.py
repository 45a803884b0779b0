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
from test_launch import EVEN, PROBE, assert_world, with_probe

if TYPE_CHECKING:
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
        registry.communicate()
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


@pytest.mark.pmix
def test_one_pull_for_all(slurm: Cluster) -> None:
    """Two jobs that need it at the same time: one makes the file, and the other says for whom it waits."""
    before = downloads(slurm)
    words = ["srun", "-N4", "-n16", "--overcommit", f"--ch-image=localhost:{PORT}/mpi:1"]
    jobs = [slurm.popen([*words, "python3", "probe.py", "--expect=16"]) for _ in range(2)]
    said = []
    for job in jobs:
        out, err = job.communicate(timeout=180)
        assert job.returncode == 0, err
        assert out.count("init ok") == 16
        said.append(err)
    assert downloads(slurm) - before == 1
    assert sum("waiting for process" in text for text in said) == 1
    assert sum("writing" in text for text in said) == 1


@pytest.mark.pmix
def test_the_second_job_starts_at_once(slurm: Cluster) -> None:
    image = f"--ch-image=localhost:{PORT}/mpi:1"
    assert slurm.run(["srun", image, "true"], timeout=180).returncode == 0
    before = downloads(slurm)
    job = slurm.run(["srun", *EVEN, image, *PROBE])
    assert_world(job, {"n1": 2, "n2": 2})
    assert job.stderr == ""
    assert downloads(slurm) == before


def test_a_bare_word_is_never_fetched(slurm: Cluster) -> None:
    log = slurm.run(["cat", LOG], check=True).stdout
    job = slurm.run(["srun", "--ch-image=mpi:1", "true"])
    assert job.returncode == 31
    assert "can't find image: mpi:1" in job.stderr
    assert slurm.run(["cat", LOG], check=True).stdout == log


def test_what_the_registry_lacks(slurm: Cluster) -> None:
    job = slurm.run(["srun", f"--ch-image=localhost:{PORT}/nosuch:1", "true"])
    assert job.returncode == 31
    assert "nosuch" in job.stderr
    assert "Traceback" not in job.stderr


@pytest.mark.pmix
def test_staged(slurm: Cluster, ch_launch: Path) -> None:
    """The file goes to the nodes of the job once, and is theirs alone; the epilog's command removes it."""
    script = f"""
"$0" --ch-stage -n4 localhost:{PORT}/mpi:1 -- python3 probe.py --expect=4 || exit
srun --ntasks-per-node=1 -n2 sh -c 'stat -c "%n %U %i $(uname -n)" /tmp/chlaunch-$SLURM_JOB_ID-*'
"$0" --ch-stage --ch-dry-run -n4 localhost:{PORT}/mpi:1 -- true
"$0" --ch-stage -n4 localhost:{PORT}/mpi:1 -- true
srun --ntasks-per-node=1 -n2 sh -c 'stat -c "%n %U %i $(uname -n)" /tmp/chlaunch-$SLURM_JOB_ID-*'
"""
    job = slurm.run(["salloc", "-N2", "-n4", "sh", "-c", script, ch_launch], timeout=180)
    assert job.returncode == 0, job.stderr
    staged = [line for line in job.stdout.splitlines() if line.startswith("/tmp/chlaunch-")]
    assert len(staged) == 4
    assert len(set(staged)) == 2  # the same two files
    assert {line.split()[1] for line in staged} == {"alice"}
    number = staged[0].split("-")[1]
    for node in ("n1", "n2"):
        assert slurm.run(["ls", staged[0].split()[0]], node=node).returncode == 0
        slurm.run([ch_launch.with_name("ch-run"), f"--clean-job={number}"], node=node, check=True)
        assert slurm.run(["ls", staged[0].split()[0]], node=node).returncode != 0


def test_staged_elsewhere(slurm: Cluster, ch_launch: Path) -> None:
    """What is not in /tmp is told of there, to the epilog's command; which takes no other link's word."""
    script = f"""
srun --ntasks-per-node=1 -n2 mkdir -p /tmp/local
"$0" --ch-stage=/tmp/local -n4 localhost:{PORT}/mpi:1 -- true || exit
"$0" --ch-stage=/tmp/local -n4 localhost:{PORT}/mpi:1 -- true || exit
echo $SLURM_JOB_ID
"""
    job = slurm.run(["salloc", "-N2", "-n4", "sh", "-c", script, ch_launch], timeout=180)
    assert job.returncode == 0, job.stderr
    start = f"chlaunch-{job.stdout.split()[-1]}-"
    plant = f"""
cd /tmp && set -e
touch local/{start}other local/note && ln -s /tmp/local/note {start}x && ln -s local/{start}other {start}other
[ $(ls local/{start}*.sqfs {start}*.sqfs | wc -l) = 2 ]
"""
    clean = f"{ch_launch.with_name('ch-run')} --clean-job={start.split('-')[1]}"
    for node in ("n1", "n2"):
        slurm.run(["sh", "-c", plant], node=node, check=True)
        slurm.run(clean, node=node, check=True)
        assert slurm.run("ls /tmp/local; ls /tmp", node=node).stdout.split()[:2] == [f"{start}other", "note"]
        assert start not in slurm.run("ls /tmp", node=node).stdout
        slurm.run("rm -r /tmp/local", node=node, check=True)


def test_nothing_is_staged_without_a_job(slurm: Cluster, ch_launch: Path) -> None:
    job = slurm.run([ch_launch, "--ch-stage", f"localhost:{PORT}/mpi:1", "--", "true"], timeout=180)
    assert job.returncode == 2
    assert "--ch-stage copies to the nodes of a job, and this is none" in job.stderr


def test_the_sites_cache(slurm: Cluster, ch_launch: Path) -> None:
    """Used if root or the owner that is named has it, and nobody else may write there; else said to be not."""
    image = f"localhost:{PORT}/mpi:1"
    words = [ch_launch, "--ch-dry-run", "--ch-cache-dir=/home/cache", image, "--", "true"]
    own = slurm.run([ch_launch, "--ch-dry-run", image, "--", "true"], check=True, timeout=180).stdout
    name = re.search(r"[0-9a-f]{64}-\w+\.sqfs", own)
    assert name is not None
    slurm.root(None, f"mkdir -p /home/cache && cp {FETCHED}/{name[0]} /home/cache && chmod 755 /home/cache")
    assert FETCHED in slurm.run(words, check=True).stdout  # what can't be read does not count
    slurm.root(None, f"chmod 644 /home/cache/{name[0]}")
    assert f"/home/cache/{name[0]}" in slurm.run(words, check=True).stdout
    for change, why in (
        ("chmod 777 /home/cache", "others than its owner may write"),
        ("chmod 755 /home/cache; chown bob: /home/cache", "it belongs to user"),
        ("mv /home/cache /home/else; ln -s /home/else /home/cache", "Not a directory"),
    ):
        slurm.root(None, change)
        refused = slurm.run(words, check=True)
        assert FETCHED in refused.stdout
        assert why in refused.stderr
    slurm.root(None, "rm /home/cache; mv /home/else /home/cache")
    named = [*words[:2], "--ch-cache-owner=bob", *words[2:]]
    assert f"/home/cache/{name[0]}" in slurm.run(named, check=True).stdout
    slurm.root(None, f"chown alice: /home/cache/{name[0]}; chmod 666 /home/cache/{name[0]}")
    assert FETCHED in slurm.run(named, check=True).stdout
    slurm.root(None, "rm -r /home/cache")
