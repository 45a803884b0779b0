"""plugins/: cli_filter.lua and oci.conf, as an administrator would install them, each without the other parts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

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
def with_oci(start: Callable[[str, dict[str, str]], Cluster], ch_run: Path, image_tiny: Path) -> Cluster:
    """Return a cluster with oci.conf, and a bundle of the tiny image in alice's home."""
    helper = (PLUGINS / "oci-ch-run").read_text()
    conf = (PLUGINS / "oci.conf-22.05").read_text()
    files = {
        "oci-ch-run": helper.replace('CH_RUN = "ch-run"', f'CH_RUN = "{ch_run}"'),
        "oci.conf": conf.replace("/usr/local/bin/oci-ch-run", "/etc/slurm/oci-ch-run"),
    }
    assert files["oci-ch-run"] != helper
    assert files["oci.conf"] != conf
    cluster = start("CliFilterPlugins=lua\n", FILTER | files)
    cluster.run(["/etc/slurm/oci-ch-run", "--bundle", image_tiny, "bundle"], check=True)
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


def test_a_container_by_oci_conf(with_oci: Cluster) -> None:
    script = 'cat /etc/os-release; pwd; echo "$1" "$VALUE"; exit 3'
    words = ["srun", "--container=/home/alice/bundle", "-N2", "sh", "-c", script, "x", "a b\"c'"]
    job = with_oci.run(words, env={"VALUE": "one\ntwo=$HOME"})
    assert job.returncode == 3
    assert job.stdout.count("a b\"c' one\ntwo=$HOME\n") == 2
    assert "Debian" not in job.stdout
    job = with_oci.run("echo input | srun --container=/home/alice/bundle cat", check=True)
    assert job.stdout == "input\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            "--container=/home/alice/bundle -n2",
            "this release of Slurm can start one task a node in a container",
        ),
        ("--container=/home/alice/none", "no such file or directory"),
        ("--container=/bin", "no bundle, there is no config.json in it"),
        ("--container=bundle", "Slurm looks for it in slurmd's directory, not in yours"),
    ],
)
def test_what_oci_conf_can_not(with_oci: Cluster, options: str, why: str) -> None:
    word = options.split(maxsplit=1)[0]
    assert refusal(with_oci.run(f"srun {options} hostname")) == f"{word}: {why}"


def test_a_script_can_not_be_in_the_container(with_oci: Cluster) -> None:
    job = with_oci.run("sbatch --container=/home/alice/bundle --wrap=true")
    assert refusal(job).endswith("this release of Slurm starts no script in a container")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"process": {"args": 3}}', '{"process": {"args": []}}', "\0"]
)
def test_a_bundle_of_nonsense(with_oci: Cluster, content: str) -> None:
    with_oci.outside("/home/alice/config.json").write_text(content)
    job = with_oci.run(["/etc/slurm/oci-ch-run", "/", "/home/alice"])
    assert job.returncode in (31, 64)
    assert "Traceback" not in job.stderr
    assert job.stderr
