"""The SPANK plugin on a real Slurm: `srun --ch-image`, `#SBATCH --ch-image`, salloc, `srun --container`."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import plugin
import pytest
from cluster import Cluster
from images import cache_directory
from test_launch import EVEN, PROBE, assert_world, with_probe

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

# What is in the small image, and on no host.
INSIDE = "/bin/busybox"


@pytest.fixture(scope="module")
def slurm(may_lack: Callable[[], AbstractContextManager[None]]) -> Iterator[Cluster]:
    """Return a two-node cluster with the plugin."""
    with may_lack():
        cluster = Cluster(
            2,
            reveal=[cache_directory()],
            conf="SchedulerType=sched/backfill",
            files={"plugstack.conf": plugin.line()},
        )
        cluster.__enter__()
    try:
        hide = f"test ! -e {INSIDE} || mount --bind /dev/null {INSIDE}"
        for node in (None, "n1", "n2"):
            cluster.root(node, hide)
        yield with_probe(cluster)
    finally:
        cluster.__exit__(None, None, None)


def batch(cluster: Cluster, head: str, *lines: str, variables: dict[str, str] | None = None) -> str:
    """Run a batch script with a head of #SBATCH words; return what it wrote, without hints."""
    done = cluster.outside("/home/alice/done")
    done.unlink(missing_ok=True)
    # sbatch --wait would look after 2 seconds, and then after 10
    text = "\n".join(["#!/bin/sh", f"#SBATCH --ntasks=2 {head}", *lines, ": >/home/alice/done", ""])
    cluster.outside("/home/alice/job.sh").write_text(text)
    cluster.run("sbatch --quiet --output=job.out job.sh", env=variables or {}, check=True)
    for _ in range(1500):
        if done.exists():
            break
        time.sleep(0.02)
    said = cluster.run(["cat", "job.out"], check=True).stdout.splitlines()
    return "\n".join(line for line in said if "hint:" not in line)


def assert_inside(job: subprocess.CompletedProcess[str], ranks: int) -> None:
    """Check that so many ranks ran in the small image."""
    assert job.returncode == 0, job.stderr
    assert job.stdout.split() == ["inside"] * ranks


WHERE = ["sh", "-c", "test -s /bin/busybox && echo inside || echo host"]
WHERE_LINE = shlex.join(WHERE)


@pytest.mark.pmix
def test_one_world(slurm: Cluster, image_ompi4: Path) -> None:
    job = slurm.run(["srun", *EVEN, f"--ch-image={image_ompi4}", *PROBE])
    assert_world(job, {"n1": 2, "n2": 2})
    assert job.stderr == ""


@pytest.mark.pmix
def test_slurms_own_option(slurm: Cluster, image_ompi4: Path) -> None:
    assert_world(slurm.run(["srun", *EVEN, "--container", image_ompi4, *PROBE]), {"n1": 2, "n2": 2})


def test_slurms_own_option_with_a_file_and_a_name(slurm: Cluster, image_tiny: Path) -> None:
    file = "/home/alice/tiny.sqfs"
    slurm.run(f"mksquashfs {image_tiny} {file} -comp zstd -noappend -quiet -no-progress", check=True)
    slurm.run(
        f"mkdir -p store/l store/images/small; cp -a {image_tiny} store/l/a; echo a >store/images/small/layers",
        check=True,
    )
    assert_inside(slurm.run(["srun", "-N2", "-n4", f"--container={file}", *WHERE]), 4)
    store = {"CH_IMAGE_STORAGE": "/home/alice/store"}
    assert_inside(slurm.run(["srun", "-N2", "--container=small", *WHERE], env=store), 2)


def test_a_container_that_is_not_there(slurm: Cluster) -> None:
    job = slurm.run(["srun", "-n2", "--container=/not/there", "hostname"])
    assert (job.returncode, job.stdout) == (31, "")
    assert "srun: error: can't find image: /not/there" in job.stderr


def test_batch_script(slurm: Cluster, image_tiny: Path) -> None:
    said = batch(
        slurm,
        f"--ch-image={image_tiny} --ch-bind=/usr:/mnt --ch-bind /usr:/srv",
        WHERE_LINE,
        f"srun {WHERE_LINE}",
        "srun -n1 sh -c 'ls -d /mnt/bin /srv/bin; env | grep -E \"SPANK|CHLAUNCH|CONTAINER\"; true'",
        f"srun -n1 --ch-image=none {WHERE_LINE}",
        f"CHLAUNCH_IMAGE=none srun -n1 {WHERE_LINE}",
        "env | grep SPANK_OPTION",
        "srun -n1 sleep 60 2>/dev/null &",
        "until squeue --steps --noheader --format=%j --job=$SLURM_JOB_ID | grep sleep; do sleep .1; done; kill $!",
    )
    assert said.splitlines() == [
        *["host", "inside", "inside", "/mnt/bin", "/srv/bin"],
        *["host", "host", "sleep"],
    ]


def test_batch_script_without_the_users_variables(slurm: Cluster, image_tiny: Path) -> None:
    said = batch(
        slurm, f"--ch-image={image_tiny} --export=NONE", f"srun {shlex.join(['/bin/sh', *WHERE[1:]])}"
    )
    assert said.split().count("inside") == 2


def test_batch_option_is_stronger_than_a_variable(slurm: Cluster, image_tiny: Path) -> None:
    said = batch(
        slurm, f"--ch-image={image_tiny}", f"srun {WHERE_LINE}", variables={"CHLAUNCH_IMAGE": "/not/there"}
    )
    assert said.split() == ["inside", "inside"]


def test_a_batch_job_with_slurms_own_option(slurm: Cluster, image_tiny: Path) -> None:
    lines = [WHERE_LINE, f"srun {WHERE_LINE}", "srun -n1 sh -c 'echo /$SLURM_CONTAINER/'"]
    said = batch(slurm, f"--container={image_tiny}", *lines)
    assert said.split() == ["host", "inside", "inside", "//"]


def test_job_array(slurm: Cluster, image_tiny: Path) -> None:
    line = "srun -n1 sh -c 'test -s /bin/busybox && echo $SLURM_ARRAY_TASK_ID'"
    assert batch(slurm, f"--array=3 --ch-image={image_tiny}", line) == "3"


def test_salloc(slurm: Cluster, image_tiny: Path) -> None:
    script = f"{WHERE_LINE}; srun {WHERE_LINE}"
    job = slurm.run(["salloc", "-Q", "-n2", f"--ch-image={image_tiny}", "sh", "-c", script])
    assert job.stdout.split() == ["host", "inside", "inside"], job.stderr


def test_sallocs_own_shell_is_on_the_host(slurm: Cluster, image_tiny: Path) -> None:
    conf = slurm.outside("/etc/slurm/slurm.conf").read_text()
    lines = "PlugStackConfig=/etc/slurm/plugstack.conf\nLaunchParameters=use_interactive_step\n"
    slurm.outside("/home/alice/interactive.conf").write_text(conf + lines)
    shell = slurm.outside("/home/alice/shell")
    lines = f"exec >$HOME/shell.out; hostname; {WHERE_LINE}; srun --overlap -n1 {WHERE_LINE} </dev/null"
    shell.write_text(f"#!/bin/sh\n{lines}\n")
    shell.chmod(0o755)
    salloc = f"salloc -Q -n1 --ch-image={image_tiny}"
    line = f"script -qec 'SHELL=$HOME/shell {salloc}' /dev/null"
    slurm.run(line, env={"SLURM_CONF": "/home/alice/interactive.conf"}, check=True)
    assert slurm.run("cat shell.out").stdout.split() == ["n1", "host", "inside"]


def test_a_host_mpirun_in_a_job_with_an_image(
    slurm: Cluster, request: pytest.FixtureRequest, ch_run: Path
) -> None:
    version = slurm.run(["mpirun", "--version"], check=True).stdout.split()[3]  # mpirun (Open MPI) 5.0.7
    image = request.getfixturevalue("image_ompi4" if version < "5" else "image_ompi5")
    rank = shlex.join([str(ch_run), "--join", "--bind=/home", "--cd=/home/alice", str(image), "--", *PROBE])
    script = f"mpirun -n 4 sh -c 'test ! -e /ch-image && echo host'; mpirun -n 4 {rank}"
    job = slurm.run(["salloc", "-Q", *EVEN, f"--ch-image={image}", "sh", "-c", script])
    assert job.stdout.split().count("host") == 4
    assert_world(job, {"n1": 2, "n2": 2})


def test_ch_launch_in_a_job_with_an_image(slurm: Cluster, image_tiny: Path, ch_launch: Path) -> None:
    job = slurm.run(
        ["salloc", "-Q", "-n2", f"--ch-image={image_tiny}", ch_launch, "--ch-mpi=none", "-n2", "--", *WHERE]
    )
    assert_inside(job, 2)
    assert job.stderr == ""  # nobody is told to add --mpi=pmix


def variables(job: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the variables that a rank printed, but those that no two jobs share."""
    assert job.returncode == 0, job.stderr
    found = dict(line.split("=", 1) for line in job.stdout.splitlines())
    own = ["JOBID", "JOB_ID", "JOB_NAME", "JOB_SLUID", "JOB_START_TIME", "JOB_END_TIME", "TASK_PID"]
    return {
        name: value
        for name, value in found.items()
        if name.removeprefix("SLURM_") not in own and "PORT" not in name
    }


def test_ranks_are_as_ch_launch_starts_them(slurm: Cluster, image_tiny: Path, ch_launch: Path) -> None:
    show = "ulimit -S -n 512; umask 027; exec "
    command = ["sh", "-c", "env; echo LIMIT=$(ulimit -n); echo UMASK=$(umask)"]
    ours = slurm.run(show + shlex.join(["srun", "-n1", f"--ch-image={image_tiny}", *command]))
    theirs = slurm.run(show + shlex.join([str(ch_launch), "-n1", str(image_tiny), "--", *command]))
    assert variables(ours) == variables(theirs)
    assert variables(ours)["LIMIT"] == "512"


def test_srun_is_srun(slurm: Cluster, image_tiny: Path) -> None:
    def srun(line: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return slurm.run(f"echo {given} | srun -n1 --ch-image={image_tiny} {line}")

    assert srun("sh -c 'exit 3'").returncode == 3
    assert srun("sh -c 'kill -SEGV $$'").returncode == 139
    assert srun("--label cat", "input").stdout == "0: input\n"
    assert srun("-lD /usr pwd").stdout == "0: /usr\n"
    assert srun("--chdir /usr pwd").stdout == "/usr\n"
    assert srun("-lJmine sh -c 'echo $SLURM_JOB_NAME'").stdout == "0: mine\n"
    assert srun("sh -c 'echo $SLURM_JOB_NAME'").stdout == "sh\n"
    assert srun("--export=NONE /bin/sh -c 'echo /$LANG/'").stdout == "//\n"
    assert srun("--overlap --exact -- sh -c 'echo x'").stdout == "x\n"
    assert srun("--ch-image=none hostname").stdout == "n1\n"


def test_a_terminal(slurm: Cluster, image_tiny: Path) -> None:
    line = f"srun -n1 --pty --ch-image={image_tiny} sh -c 'test -s /bin/busybox && tty'"
    job = slurm.run(["script", "-qec", line, "/dev/null"])
    assert "/dev/pts/" in job.stdout, job.stdout


def test_a_task_prolog_runs_on_the_host(slurm: Cluster, image_tiny: Path) -> None:
    prolog = slurm.outside("/home/alice/prolog")
    prolog.write_text(f"#!/bin/sh\necho export FROM=$({WHERE_LINE})\n")
    prolog.chmod(0o755)
    line = f"srun -n1 --task-prolog=/home/alice/prolog --ch-image={image_tiny} sh -c 'echo $FROM'"
    assert slurm.run(line).stdout == "host\n"


def test_several_steps_in_one_line(slurm: Cluster, image_tiny: Path) -> None:
    # each on a node of its own: they do not share any
    one, two = (shlex.join(["sh", "-c", f"({WHERE[2]}) | sed s/^/{number}/"]) for number in (1, 2))
    job = slurm.run(f"srun -n1 {one} : -n1 --ch-image {image_tiny} {two}")
    assert sorted(job.stdout.split()) == ["1host", "2inside"], job.stderr


def test_a_command_that_is_nowhere_is_said_once(slurm: Cluster, image_tiny: Path) -> None:
    job = slurm.run(["srun", "-n4", f"--ch-image={image_tiny}", "nosuch"])
    assert job.returncode == 49
    assert [line for line in job.stderr.splitlines() if "hint" not in line] == [
        "srun: error: command not found in the image: nosuch"
    ]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        pytest.param(
            "--ch-uid=0", 2, "--ch-uid and --ch-gid don't go with --mpi=pmix", marks=pytest.mark.pmix
        ),
        ("--multi-prog", 2, "--multi-prog has its commands in a file"),
        ("--bcast=/tmp/x", 2, "--bcast copies a program of this host"),
        ("--ch-join-tag=", 255, "--ch-join-tag is empty"),
        ("--ch-nosuch", 255, "unrecognized option '--ch-nosuch'"),
        ("--ch-uid=me", 64, "uid must be a number, not me"),
        ("--container=/x", 64, "two images: --ch-image="),
    ],
)
def test_what_is_refused(slurm: Cluster, image_ompi4: Path, options: str, code: int, says: str) -> None:
    slurm.outside("/home/alice/prog").write_text("0 hostname\n")
    command = "prog" if options == "--multi-prog" else "python3 probe.py"
    job = slurm.run(f"srun -n1 --ch-image={image_ompi4} {options} {command}")
    assert job.returncode == code
    assert says in job.stderr
    assert "init ok" not in job.stdout


def test_a_node_without_ch_run(slurm: Cluster, image_tiny: Path, ch_run: Path) -> None:
    slurm.root("n2", ["mount", "-t", "tmpfs", "tmpfs", str(ch_run.parent)])
    try:
        job = slurm.run(["srun", "-N2", f"--ch-image={image_tiny}", *WHERE])
    finally:
        slurm.root("n2", ["umount", str(ch_run.parent)])
    assert job.returncode != 0
    # before the message stands slurmstepd-n2:, or in 26.05 the time
    assert f" error: execve(): {ch_run}: No such file or directory" in job.stderr
    assert "srun: error: n2: task 1: Exited with exit code 2" in job.stderr


def test_an_image_and_a_bind_that_one_node_lacks(slurm: Cluster, image_tiny: Path) -> None:
    for node in (None, "n1"):
        slurm.run(f"cp -a {image_tiny} /tmp/image", node=node, check=True)
    job = slurm.run(["srun", "-N2", "--ch-image=/tmp/image", *WHERE])
    assert job.returncode == 31
    assert job.stdout.split() == ["inside"]
    assert "can't find image: /tmp/image" in job.stderr
    assert "n2: task 1: Exited with exit code 31" in job.stderr
    job = slurm.run(["srun", "-N2", f"--ch-image={image_tiny}", "--ch-bind=/tmp/image:/mnt", *WHERE])
    assert (job.returncode, job.stdout.split()) == (31, ["inside"])
    assert "/tmp/image" in job.stderr


def test_nothing_of_ours_is_in_slurmstepd(slurm: Cluster, image_tiny: Path) -> None:
    slurm.run(["srun", "-n1", f"--ch-image={image_tiny}", *WHERE], check=True)
    slurm.run(["srun", "-n1", "--ch-image=none", "true"], check=True)
    assert not [line for line in slurm.logs.splitlines() if "SPANK" in line]


def test_root_must_insist(slurm: Cluster, image_tiny: Path) -> None:
    words = ["srun", "-n1", f"--ch-image={image_tiny}", *WHERE]
    refused = slurm.root(None, words, check=False)
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "--ch-allow-root insists" in refused.stderr
    assert slurm.root(None, [words[0], "--ch-allow-root", *words[1:]]).stdout == "inside\n"


def test_help_lists_the_options(slurm: Cluster) -> None:
    for command in ("srun", "sbatch", "salloc"):
        text = slurm.run([command, "--help"], check=True).stdout
        assert "--ch-image=IMAGE" in text
        assert "--ch-no-join" in text
        assert "--ch-trace" not in text
