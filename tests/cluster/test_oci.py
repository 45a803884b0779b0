"""plugins/oci.conf-*, the one for this Slurm, as an administrator would install it: beside cli_filter.lua alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from cluster import Cluster
from images import cache_directory
from test_plugins import FILTER, PLUGINS, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


def release() -> tuple[int, ...]:
    """Return Slurm's release; that of Debian 12 where there is none."""
    try:
        said = subprocess.run(["slurmd", "-V"], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return (22, 5)
    return tuple(int(part) for part in said.split()[-1].split(".")[:2])


# 22.05: bundles, and one task a node. Since 23.02: images.
OLD = release() < (23, 2)
CONF = PLUGINS / ("oci.conf-22.05" if OLD else "oci.conf-23.02")

# Until 24.11, at least, Slurm quotes this wrongly; the helper of 22.05 reads the words from a file.
APOSTROPHE = "'" if OLD or release() >= (26, 5) else ""


@pytest.fixture(scope="module")
def slurm(
    may_lack: Callable[[], AbstractContextManager[None]], ch_run: Path, image_tiny: Path
) -> Iterator[Cluster]:
    """Return a cluster with oci.conf, and what --container takes at /home/alice/image."""
    helper = (PLUGINS / "oci-ch-run").read_text()
    conf = CONF.read_text().replace("/usr/local/bin/oci-ch-run", "/etc/slurm/oci-ch-run")
    files = {
        "oci-ch-run": helper.replace('CH_RUN = "ch-run"', f'CH_RUN = "{ch_run}"'),
        "oci.conf": conf.replace("exec ch-run ", f"exec {ch_run} "),
    }
    assert files["oci-ch-run"] != helper
    assert files["oci.conf"] != CONF.read_text()
    with may_lack():
        cluster = Cluster(2, reveal=[cache_directory()], conf="CliFilterPlugins=lua\n", files=FILTER | files)
        cluster.__enter__()
    try:
        make = (
            ["/etc/slurm/oci-ch-run", "--bundle", image_tiny, "image"]
            if OLD
            else ["ln", "-s", image_tiny, "image"]
        )
        cluster.run(make, check=True)
        yield cluster
    finally:
        cluster.__exit__(None, None, None)


def test_a_container(slurm: Cluster) -> None:
    words = ["srun", "--container=/home/alice/image", *(["-N2"] if OLD else ["-N2", "-n4", "--mpi=none"])]
    script = 'cat /etc/os-release; echo "$1" "$VALUE" "$#"; exit 3'
    argument = f'a  b"c*{APOSTROPHE}'
    job = slurm.run([*words, "sh", "-c", script, "x", argument, ""], env={"VALUE": "one\ntwo=$HOME"})
    assert job.returncode == 3
    assert job.stdout.count(f"{argument} one\ntwo=$HOME 2\n") == (2 if OLD else 4)
    assert "Debian" not in job.stdout
    job = slurm.run("echo input | srun --container=/home/alice/image cat", check=True)
    assert job.stdout == "input\n"


def test_it_is_ended_whole(slurm: Cluster) -> None:
    job = slurm.popen(["srun", "--container=/home/alice/image", "sleep", "1000"])
    for _ in range(300):
        if slurm.run("ps -o comm= -u alice | grep sleep", node="n1").stdout:
            break
    slurm.run("scancel $(squeue --noheader --format=%A)", check=True)
    job.communicate(timeout=30)
    assert job.returncode != 0
    slurm.run('until test -z "$(squeue --noheader)"; do sleep .1; done', check=True)
    left = "ps -o comm= -u alice | grep -E 'sleep|ch-run'; find /var/spool/slurmd -name 'oci-*'"
    assert slurm.run(left, node="n1").stdout == ""


def test_a_batch_script(slurm: Cluster) -> None:
    words = "sbatch --quiet --wait --container=/home/alice/image -o job.out --wrap='cat /etc/os-release; echo $0; cd /usr; pwd'"
    job = slurm.run(words)
    if OLD:
        assert refusal(job).endswith("this release of Slurm starts no script in a container")
        return
    assert job.returncode == 0
    *_, missing, script, directory = slurm.run("cat job.out", check=True).stdout.splitlines()
    assert "/etc/os-release" in missing
    assert script.endswith("/slurm_script")
    assert directory == "/usr"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--container=/home/alice/none", "no such file or directory"),
        *(
            [
                (
                    "--container=/home/alice/image -n2",
                    "this release of Slurm can start one task a node in a container",
                ),
                ("--container=/bin", "no bundle, there is no config.json in it"),
                ("--container=image", "Slurm looks for it in slurmd's directory, not in yours"),
            ]
            if OLD
            else []
        ),
    ],
)
def test_what_it_can_not(slurm: Cluster, options: str, why: str) -> None:
    word = options.split(maxsplit=1)[0]
    assert refusal(slurm.run(f"srun {options} hostname")) == f"{word}: {why}"


def test_what_images_can_be(slurm: Cluster, image_tiny: Path) -> None:
    slurm.run(f"mksquashfs {image_tiny} tiny.sqfs -noappend -quiet -no-progress", check=True)
    words = ["/home/alice/image", "/home/alice/tiny.sqfs"]
    if OLD:
        slurm.run("/etc/slurm/oci-ch-run --bundle tiny.sqfs file", check=True)
        words[1] = "/home/alice/file"
    else:
        words.append("image")
    inside = "test -s /bin/busybox && ! test -e /etc/os-release && echo inside"
    for word in words:
        job = slurm.run(["srun", f"--container={word}", "sh", "-c", inside])
        assert (job.returncode, job.stdout) == (0, "inside\n"), job.stderr


def test_where_a_command_starts(slurm: Cluster) -> None:
    job = slurm.run("srun --container=/home/alice/image --chdir=/usr pwd", check=True)
    assert job.stdout == ("/\n" if OLD else "/usr\n")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"process": {"args": 3}}', '{"process": {"args": []}}', "\0"]
)
def test_a_bundle_of_nonsense(slurm: Cluster, content: str) -> None:
    slurm.outside("/home/alice/config.json").write_text(content)
    job = slurm.run(["/etc/slurm/oci-ch-run", "/", "/home/alice"])
    assert job.returncode in (31, 64)
    assert "Traceback" not in job.stderr
    assert job.stderr
