"""Fixtures for all tests: a machine, a cluster, images, and the programs under test.

A part that this host lacks skips the tests that need it, with the reason; where CHLAUNCH_MUST_RUN is set it
fails them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(CHECKOUT / "tests" / name) for name in ("cluster", "images", "registry/servers")
]  # tests are not a package

from cluster import Cluster  # noqa: E402
from images import ImageUnavailableError, cache_directory, image  # noqa: E402
from machine import Machine  # noqa: E402
from space import UnavailableError, readable_files  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from builds import Site


def lacking(reason: str) -> None:
    """Skip the test that asks, or fail it where nothing may be skipped."""
    if os.environ.get("CHLAUNCH_MUST_RUN"):
        pytest.fail(f"CHLAUNCH_MUST_RUN is set, and {reason}", pytrace=False)
    pytest.skip(reason)


@contextmanager
def must_run() -> Iterator[None]:
    """Turn what this host lacks into a skip or a failure."""
    try:
        yield
    except (UnavailableError, ImageUnavailableError) as error:
        lacking(str(error))


@pytest.fixture(scope="session")
def may_lack() -> Callable[[], AbstractContextManager[None]]:
    """Return `must_run`, for a part that only some tests ask for."""
    return must_run


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Return a login node without Slurm: users alice and bob, /tmp, /home and a network of its own."""
    with ExitStack() as stack:
        with must_run():
            machine = stack.enter_context(Machine(reveal=[cache_directory()]))
        yield machine


@pytest.fixture(scope="session")
def start_cluster() -> Iterator[Callable[[int], Cluster]]:
    """Return a function that gives the cluster with so many nodes, which it starts if need be."""
    clusters: dict[int, Cluster] = {}
    with ExitStack() as stack:

        def start(nodes: int) -> Cluster:
            if nodes not in clusters:
                with must_run():
                    clusters[nodes] = stack.enter_context(Cluster(nodes, reveal=[cache_directory()]))
            return clusters[nodes]

        yield start


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[[int], Cluster]) -> Cluster:
    """Return a real Slurm with two nodes."""
    return start_cluster(2)


@pytest.fixture(scope="session")
def image_tiny() -> Path:
    """Return an image with busybox, there in no time."""
    with must_run():
        return image("tiny")


@pytest.fixture(scope="session")
def image_ompi4() -> Path:
    """Return an image with Open MPI 4 and mpi4py."""
    with must_run():
        return image("ompi4")


@pytest.fixture(scope="session")
def image_ompi5() -> Path:
    """Return an image with Open MPI 5 and mpi4py."""
    with must_run():
        return image("ompi5")


@pytest.fixture(scope="session")
def image_mpich4() -> Path:
    """Return an image with MPICH 4.0 and mpi4py."""
    with must_run():
        return image("mpich4")


@pytest.fixture(scope="session")
def image_wheels() -> Path:
    """Return an image with several MPIs, each in a Python environment of its own."""
    with must_run():
        return image("wheels")


@pytest.fixture
def site(tmp_path: Path, image_tiny: Path, ch_run: Path) -> Site:
    """Return a context and a storage of their own for builds, with the image tiny."""
    from builds import make_site  # noqa: PLC0415  most tests build nothing

    return make_site(tmp_path, image_tiny, ch_run)


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory, image_tiny: Path, ch_run: Path) -> Site:
    """Return the same for all tests of a module."""
    from builds import make_site  # noqa: PLC0415  likewise

    return make_site(tmp_path_factory.mktemp("shared"), image_tiny, ch_run)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to run tests with another ch-run."""
    parser.addoption(
        "--sanitized",
        action="store_true",
        help="test a ch-run that ends at memory errors and undefined behaviour; add: -m 'not release'",
    )


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """Return the directory with ch-run and the fuzzers, built to end at memory errors and undefined behaviour."""
    directory = CHECKOUT / "build/asan"
    if not shutil.which("cmake"):
        lacking("there is no cmake: run tests/setup.sh test")
    with readable_files():
        configure = ["-S", str(CHECKOUT), "-B", str(directory), "-DFUZZ=ON", "-DCHLAUNCH_VERSION=0.0"]
        build = ["--build", str(directory), "--parallel", str(os.cpu_count())]
        for words in (configure, build):
            subprocess.run(["cmake", *words], check=True)
    helper = directory / "ch-cdi"  # ch-run looks for it beside itself
    if not helper.is_symlink():
        helper.symlink_to(CHECKOUT / ".venv/bin/ch-cdi")
    return directory


@pytest.fixture(scope="session")
def ch_run(request: pytest.FixtureRequest) -> Path:
    """Return the ch-run that `make build` made, or the sanitized one."""
    if request.config.getoption("--sanitized"):
        return cast("Path", request.getfixturevalue("sanitized")) / "ch-run"
    return _command("ch-run")


@pytest.fixture(scope="session")
def ch_launch() -> Path:
    """Return the ch-launch that `make build` made."""
    return _command("ch-launch")


def _command(name: str) -> Path:
    path = CHECKOUT / ".venv/bin" / name
    if not path.exists():
        lacking(f"there is no {path}: run make build")
    return path
