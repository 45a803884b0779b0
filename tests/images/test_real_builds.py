"""Images that ch-image builds as people build theirs, with apt, pip and gcc, as a user of a cluster; and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import plugin
import pytest
from building import EXAMPLE, ch_image, outward
from cluster import Cluster
from images import cache_directory, image
from machine import CHECKOUT
from test_launch import EVEN, PROBE, assert_world, with_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

# In the home that all nodes share.
STORAGE = "/home/alice/storage"
STORED = {"CH_IMAGE_STORAGE": STORAGE}

CH_RUN = CHECKOUT / ".venv/bin/ch-run"

BASES = {"debian:bookworm": "debian", "debian:trixie": "trixie"}

# A step that is done now, and how long a build took.
DONE = re.compile(r"^ *\d+\. ", re.MULTILINE)
GROWN = re.compile(r"^grown in (\d+) instructions: (\S+) \(([0-9.]+) s\)$", re.MULTILINE)

PIP = """\
FROM demo
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
RUN python3 -m venv /opt/mpi
RUN --mount=type=bind,source=wheels,target=/wheels \\
    /opt/mpi/bin/pip install --no-index --find-links=/wheels mpi4py
"""

ANSWER = '#include <stdio.h>\nint main(void) { puts("42"); return 0; }\n'
TWO_STAGES = """\
FROM debian:trixie AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY answer.c /src/
RUN gcc -static -O2 -o /src/answer /src/answer.c
FROM scratch
COPY --from=build /src/answer /answer
ENTRYPOINT ["/answer"]
"""


@pytest.fixture(scope="module")
def site(may_lack: Callable[[], AbstractContextManager[None]]) -> Iterator[Cluster]:
    """Return a two-node cluster with the plugin, and storage in alice's home that has the roots of Debian."""
    with may_lack():
        roots = {name: image(word) for name, word in BASES.items()}
        cluster = Cluster(2, reveal=[cache_directory()], files={"plugstack.conf": plugin.line()})
        cluster.__enter__()
    try:
        for name, root in roots.items():
            done = ch_image(cluster.machine, "import", root, name, storage=STORAGE)
            assert done.returncode == 0, done.stderr
        yield with_probe(cluster)
    finally:
        cluster.__exit__(None, None, None)


def build(site: Cluster, *words: object, expect: int = 0) -> str:
    """Build as alice; return what steps and ch-image said."""
    done = ch_image(site.machine, "build", *outward(site.machine), *words, storage=STORAGE)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def context(site: Cluster, name: str, files: dict[str, str]) -> str:
    """Return a directory of alice's with some files in it."""
    path = f"/home/alice/{name}"
    site.run(["mkdir", "-p", path], check=True)
    for file, text in files.items():
        site.outside(f"{path}/{file}").write_text(text)
    return path


@pytest.fixture(scope="module")
def demo(site: Cluster) -> str:
    """Return what the first build of the example said."""
    return build(site, "-t", "demo", EXAMPLE)


def test_example_is_built_step_by_step(demo: str) -> None:
    grown = GROWN.search(demo)
    assert grown is not None
    assert grown[2] == "demo"
    assert len(DONE.findall(demo)) == 3  # RUN, COPY and WORKDIR; FROM is there, the others change no file
    assert "Setting up python3-mpi4py" in demo


def test_second_build_does_nothing(site: Cluster, demo: str) -> None:
    again = build(site, "-t", "demo", EXAMPLE)
    assert not DONE.findall(again)
    grown = GROWN.search(again)
    assert grown is not None
    assert float(grown[3]) < 1
    assert demo != again


@pytest.mark.usefixtures("demo")
def test_second_build_loads_no_client_of_registries(site: Cluster) -> None:
    words = ("build", "-t", "demo", EXAMPLE)
    done = ch_image(site.machine, *words, storage=STORAGE, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "chlaunch.image.build.builder" in loaded
    assert not loaded & {"requests", "rich", "urllib3", "zstandard", "chlaunch.image.pull"}


@pytest.mark.pmix
@pytest.mark.usefixtures("demo")
def test_srun_makes_one_world_of_it(site: Cluster) -> None:
    job = site.run(["srun", *EVEN, "--ch-image=demo", *PROBE], env=STORED)
    assert_world(job, {"n1": 2, "n2": 2})
    said = site.run(["srun", *EVEN, "--ch-image=demo", "hello"], env=STORED, check=True).stdout
    hosts = [("n1", 0), ("n1", 1), ("n2", 2), ("n2", 3)]
    assert sorted(said.splitlines()) == [
        f"hello from rank {rank} of 4 on {host}; all ranks add up to 6" for host, rank in hosts
    ]


@pytest.mark.pmix
@pytest.mark.usefixtures("demo")
def test_pip_installs_from_wheels_of_the_context(site: Cluster, tmp_path: Path) -> None:
    place = context(site, "pip", {"Dockerfile": PIP})
    words = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11", "mpi4py==4.1.2"]
    subprocess.run([sys.executable, "-m", "pip", "download", *words, "--dest", tmp_path], check=True)
    site.run(["mkdir", f"{place}/wheels"], check=True)
    for wheel in tmp_path.glob("*.whl"):
        shutil.copy(wheel, site.outside(f"{place}/wheels"))
    build(site, "-t", "demo-pip", place)
    probe = ["/opt/mpi/bin/python3", *PROBE[1:]]
    assert_world(site.run(["srun", *EVEN, "--ch-image=demo-pip", *probe], env=STORED), {"n1": 2, "n2": 2})
    inside = [CH_RUN, "-s", STORAGE, "demo-pip", "--", "ls", "/wheels"]
    assert site.run(inside).returncode != 0  # what was only mounted is not in the image


def test_two_stages_leave_one_program(site: Cluster) -> None:
    place = context(site, "stages", {"Dockerfile": TWO_STAGES, "answer.c": ANSWER})
    build(site, "-t", "answer", place)
    assert site.run([CH_RUN, "-s", STORAGE, "answer", "--", "/answer"], check=True).stdout == "42\n"
    assert site.run([CH_RUN, "-s", STORAGE, "answer", "--", "/bin/sh"]).returncode != 0
    site.outside(f"{place}/answer.c").write_text(ANSWER.replace("42", "43"))
    again = build(site, "-t", "answer", place)
    assert "apt-get" in again
    assert "Setting up" not in again  # apt's step is the same; what follows the changed file is not
    assert site.run([CH_RUN, "-s", STORAGE, "answer", "--", "/answer"], check=True).stdout == "43\n"
