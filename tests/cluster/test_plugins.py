"""plugins/cli_filter.lua as an administrator would install it, alone and beside the SPANK plugin."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import plugin
import pytest
from cluster import Cluster
from images import cache_directory
from machine import CHECKOUT

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

PLUGINS = CHECKOUT / "plugins"
FILTER = {"cli_filter.lua": (PLUGINS / "cli_filter.lua").read_text()}


@pytest.fixture(scope="module")
def start(
    may_lack: Callable[[], AbstractContextManager[None]],
) -> Iterator[Callable[[str, dict[str, str]], Cluster]]:
    """Return a function that starts a cluster with some lines in slurm.conf and some files beside it."""
    with ExitStack() as stack:

        def one(conf: str, files: dict[str, str]) -> Cluster:
            with may_lack():
                return stack.enter_context(Cluster(2, reveal=[cache_directory()], conf=conf, files=files))

        yield one


@pytest.fixture(scope="module")
def plain(start: Callable[[str, dict[str, str]], Cluster]) -> Cluster:
    """Return a cluster with the filter and nothing else."""
    return start("CliFilterPlugins=lua\n", FILTER)


@pytest.fixture(scope="module")
def with_plugin(start: Callable[[str, dict[str, str]], Cluster]) -> Cluster:
    """Return a cluster with the filter and the SPANK plugin."""
    conf = "CliFilterPlugins=lua\nSchedulerType=sched/backfill\n"  # for several steps in one line
    cluster = start(conf, FILTER | {"plugstack.conf": plugin.line()})
    for node in (None, "n1", "n2"):
        cluster.root(node, "test ! -e /bin/busybox || mount --bind /dev/null /bin/busybox")
    return cluster


def refusal(job: subprocess.CompletedProcess[str]) -> str:
    """Return what was refused and why, when it was refused before it became a job."""
    *said, last = job.stderr.splitlines()
    assert last.endswith("error: cli_filter plugin terminated with error")
    assert (job.returncode, job.stdout, len(said)) == (1, "", 2)
    return said[0].partition(" error: lua: ")[2]


@pytest.mark.parametrize("command", ["srun --container=/bin hostname", "sbatch --container=/bin --wrap=true"])
def test_a_container_that_nobody_runs(plain: Cluster, command: str) -> None:
    assert refusal(plain.run(command)) == (
        "--container=/bin: Slurm runs no containers here, the command would run outside"
    )
    assert plain.run("squeue --noheader", check=True).stdout == ""


def test_lines_without_containers_pass(plain: Cluster) -> None:
    job = plain.run("srun -N2 -n4 --mpi=pmi2 hostname && sbatch --wrap=true && salloc --quiet -n2 true")
    assert job.returncode == 0
    assert "lua" not in job.stderr


def test_an_image_that_is_not_there(plain: Cluster, ch_run: Path, image_tiny: Path) -> None:
    job = plain.run(["srun", ch_run, "-b", "/home", "/home/no.sqfs", "--", "true"])
    assert refusal(job) == "ch-run /home/no.sqfs: no such file or directory"
    for image in (image_tiny, "/root/closed"):  # what can't be looked at may be there
        job = plain.run(["srun", ch_run, image, "--", "/bin/true"])
        assert "lua" not in job.stderr


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "-n2 CH_RUN IMAGE -- true",
            "2 tasks without --mpi: an MPI program would run as 2 jobs of one rank: add",
        ),
        (
            "-n2 --mpi=pmix CH_RUN IMAGE -- true",
            "2 ranks, --mpi=pmix and each in a container of its own: add --join",
        ),
        (
            "-N2 -n2 --mpi=none CH_RUN IMAGE -- mpirun",
            "each of 2 tasks would run mpirun: srun starts the ranks",
        ),
        ("-n2 --mpi=pmix CH_RUN -j IMAGE -- true", ""),
        ("-n2 --mpi=pmix CH_RUN --join IMAGE -- true", ""),
        ("-n2 --mpi=none CH_RUN IMAGE -- true", ""),
        ("-n1 CH_RUN IMAGE -- true", ""),
        ("-n2 CH_RUN --unset-env=CHLAUNCH_* IMAGE -- true", ""),  # as ch-launch writes it
    ],
)
def test_advice(plain: Cluster, ch_run: Path, image_tiny: Path, line: str, hint: str) -> None:
    words = line.replace("CH_RUN", str(ch_run)).replace("IMAGE", str(image_tiny)).split()
    said = [text for text in plain.run(["srun", *words]).stderr.splitlines() if " lua: " in text]
    assert [text.partition("lua: hint: ")[2][: len(hint)] for text in said] == ([hint] if hint else [])
    assert "lua" not in plain.run(["srun", *words], env={"CHLAUNCH_NO_HINTS": "1"}).stderr


def test_the_sites_default_is_known(plain: Cluster, ch_run: Path, image_tiny: Path) -> None:
    text = plain.outside("/etc/slurm/slurm.conf").read_text()
    plain.outside("/home/alice/slurm.conf").write_text(
        text.replace("MpiDefault=none", "mpidefault = PMIx # ours")
    )
    plain.outside("/home/alice/cli_filter.lua").write_text(FILTER["cli_filter.lua"])
    line = ["srun", "-n2", ch_run, image_tiny, "--", "true"]
    assert "--mpi=pmix and each" in plain.run(line, env={"SLURM_CONF": "/home/alice/slurm.conf"}).stderr


INSIDE = "test -s /bin/busybox && echo inside || echo host"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("srun -n2 --ch-image=TINY sh -c", "inside inside"),
        (
            "srun -n2 --ch-mpi=none --ch-bind=/usr:/mnt --ch-bind=/usr:/srv --ch-image=TINY sh -c",
            "inside inside",
        ),
        ("srun --container=TINY sh -c", "inside"),
        ("srun --ch-image=none sh -c", "host"),
        ("srun sh -c", "host"),
        ("CHLAUNCH_IMAGE=TINY srun sh -c", "inside"),
        ("srun --ch-image=./link sh -c", "inside"),
        ("srun --ch-storage=/home/alice/store --ch-image=small:1 sh -c", "inside"),
        ("srun --ch-storage=/home/alice/store --container=small:1 sh -c", "inside"),
        ("CH_IMAGE_STORAGE=/home/alice/store srun --ch-image=small:1 sh -c", "inside"),
        ("salloc -Q --ch-image=TINY srun sh -c", "inside"),
        ("srun -Q -n1 --ch-image=TINY true : -n1 --ch-image=TINY sh -c", "inside"),
    ],
)
def test_filter_and_plugin_agree(with_plugin: Cluster, image_tiny: Path, line: str, says: str) -> None:
    store = (
        "mkdir -p store/l store/images/small+1; ln -sfn TINY store/l/a; echo a >store/images/small+1/layers"
    )
    with_plugin.run(f"ln -sfn TINY link; {store}".replace("TINY", str(image_tiny)), check=True)
    job = with_plugin.run(f"{line.replace('TINY', str(image_tiny))} '{INSIDE}'")
    assert (job.returncode, " ".join(job.stdout.split())) == (0, says), job.stderr
    assert job.stderr == ""


def test_filter_and_plugin_agree_in_a_batch_script(with_plugin: Cluster, image_tiny: Path) -> None:
    line = f"sbatch --quiet --wait -o job.out -n2 --ch-image={image_tiny} --wrap \"srun sh -c '{INSIDE}'\""
    assert with_plugin.run(line, check=True).stderr == ""
    assert with_plugin.run("cat job.out", check=True).stdout.split() == ["inside", "inside"]


@pytest.mark.parametrize("option", ["--ch-image", "--container"])
def test_an_image_that_is_not_there_is_said_once(with_plugin: Cluster, option: str) -> None:
    for command in ("srun OPTION true", "sbatch --wrap=true OPTION"):
        job = with_plugin.run(command.replace("OPTION", f"{option}=/not/there"))
        assert job.returncode != 0
        assert [line for line in job.stderr.splitlines() if "/not/there" in line] == [
            job.stderr.splitlines()[0]
        ]
    assert with_plugin.run("squeue --noheader", check=True).stdout == ""
