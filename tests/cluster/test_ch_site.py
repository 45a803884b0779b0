"""ch-site check on a real Slurm: well, and with nodes on which something is wrong."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster import Cluster

SCRIPTS = CHECKOUT / ".venv/bin"
CH_SITE = SCRIPTS / "ch-site"


def hosts_of(cluster: Cluster, *words: str, code: int) -> dict[str, dict[str, Any]]:
    """Run ch-site check; return its rows, by host and name."""
    done = cluster.run([CH_SITE, "check", "--json", *words])
    assert done.returncode == code, done.stdout + done.stderr
    told = json.loads(done.stdout)
    return {host["name"]: {row["name"]: row for row in host["rows"]} for host in told["hosts"]}


@contextmanager
def covered(cluster: Cluster, node: str, path: str, cover: str) -> Iterator[None]:
    """Have something else at a path of one node."""
    cluster.root(node, ["mount", "--bind", cover, path])
    try:
        yield
    finally:
        cluster.root(node, ["umount", path])


def test_slurm_takes_what_is_installed(cluster: Cluster) -> None:
    (plugin, *_) = Path("/usr/lib").glob(
        "*/slurm-wlm/spank_pbs.so"
    )  # one of Slurm's own; it tells ranks of itself
    listing = "find /etc/slurm /var/lib -type f -exec sha256sum {} + | sort"
    words = ["--plugin", plugin, "--plugin-dir", "/etc/slurm/lib", "--no-epilog"]
    cluster.root(None, "mount -t tmpfs -o mode=755 tmpfs /var/lib")  # where the record is: the host's own
    try:
        before = cluster.root(None, listing).stdout
        cluster.root(None, [CH_SITE, "install", *words])
        assert "PBS_JOBID=" in cluster.run(["srun", "-n1", "env"], check=True).stdout
        cluster.root(None, "mv /etc/slurm/lib/spank_chlaunch.so /etc/slurm/lib/gone")
        assert "/etc/slurm/lib/spank_chlaunch.so" in cluster.run(["srun", "-n1", "env"]).stderr
        cluster.root(None, "mv /etc/slurm/lib/gone /etc/slurm/lib/spank_chlaunch.so")
        cluster.root(None, [CH_SITE, "uninstall"])
        assert cluster.root(None, listing).stdout == before
    finally:
        cluster.root(None, "umount /var/lib; rm -rf /etc/slurm/lib /etc/slurm/plugstack.conf")
    assert "PBS_JOBID=" not in cluster.run(["srun", "-n1", "env"], check=True).stdout


@pytest.mark.pmix
def test_after_installing_srun_runs_images(cluster: Cluster, image_ompi5: Path) -> None:
    shutil.copy(CHECKOUT / "chlaunch/probe.py", cluster.outside("/home/alice/probe.py"))
    probe = ["python3", "probe.py", "--expect=4", "--require-cma"]
    even = ["-N2", "-n4", "--ntasks-per-node=2"]
    cluster.root(None, "mount -t tmpfs -o mode=755 tmpfs /var/lib")
    try:
        cluster.root(None, [CH_SITE, "install", "--plugin-dir", "/etc/slurm/lib"])
        for door in ("--ch-image", "--container"):
            job = cluster.run(["srun", *even, f"{door}={image_ompi5}", *probe])
            assert (job.returncode, job.stdout.count("finalize ok")) == (0, 4), job.stdout + job.stderr
        script = ["#!/bin/sh", f"#SBATCH {' '.join(even)}", f"#SBATCH --ch-image={image_ompi5}"]
        lines = [*script, f"srun {' '.join(probe)}", ""]
        cluster.outside("/home/alice/job.sh").write_text("\n".join(lines))
        cluster.run(["sbatch", "--quiet", "--wait", "--output=job.out", "job.sh"])
        assert cluster.run("cat job.out").stdout.count("finalize ok") == 4
        cluster.root(None, [CH_SITE, "uninstall"])
    finally:
        cluster.root(
            None, "umount /var/lib; rm -rf /etc/slurm/lib /etc/slurm/plugstack.conf /etc/slurm/epilog.d"
        )


@contextmanager
def installed(cluster: Cluster) -> Iterator[None]:
    """Have the plugin installed, in a directory of each host's own."""
    cluster.root(None, "mount -t tmpfs -o mode=755 tmpfs /var/lib")
    try:
        cluster.root(None, [CH_SITE, "install", "--no-epilog", "--plugin-dir", "/etc/slurm/lib"])
        yield
        cluster.root(None, [CH_SITE, "uninstall"])
    finally:
        cluster.root(None, "umount /var/lib; rm -rf /etc/slurm/lib /etc/slurm/plugstack.conf")


def test_a_node_without_the_plugin_that_is_required(cluster: Cluster) -> None:
    with installed(cluster):
        stack = cluster.outside("/etc/slurm/plugstack.conf")
        stack.write_text(stack.read_text().replace("optional", "required"))
        assert {
            rows["SPANK plugin"]["verdict"] for rows in hosts_of(cluster, "--nodes=n1", code=1).values()
        } == {"ok"}
        with covered(cluster, "n2", "/etc/slurm/lib", "/mnt"):
            hosts = hosts_of(cluster, code=2)
        stack.write_text(stack.read_text().replace("required", "optional"))
    assert hosts["n1"]["SPANK plugin"]["verdict"] == "ok"
    assert "task 1 launch failed: " in hosts["n2"]["node"]["found"]
    assert "spank_chlaunch.so" in hosts["n2"]["node"]["remedy"]


def test_a_node_without_the_plugin_that_is_optional(cluster: Cluster) -> None:
    with installed(cluster), covered(cluster, "n2", "/etc/slurm/lib", "/mnt"):
        hosts = hosts_of(cluster, code=1)
        rank = cluster.run("srun -N1 -w n2 hostname")
        srun = cluster.run("srun -N1 --ch-image=none hostname", node="n2")
    assert {name: rows["SPANK plugin"]["verdict"] for name, rows in hosts.items()} == {
        "here": "ok",
        "n1": "ok",
        "n2": "warning",
    }
    # as the row says
    assert (rank.returncode, rank.stdout) == (0, "n2\n")
    assert "unrecognized option '--ch-image=none'" in srun.stderr


def test_only_root_writes_to_etc(cluster: Cluster) -> None:
    install = f"{CH_SITE} install --no-plugin --no-epilog --oci --from /home/alice"
    done = cluster.run(
        f"for name in 22.05 23.02; do echo x >oci.conf-$name; done; {install}; code=$?; rm oci.conf-*; exit $code"
    )
    assert done.returncode == 31
    assert "ch-site: error: /var/lib/chlaunch: Permission denied" in done.stderr
    assert "ch-site: hint: as root" in done.stderr


def test_all_is_well(cluster: Cluster) -> None:
    hosts = hosts_of(cluster, code=1)  # no MpiDefault, or no PMIx; Debian 12's squashfuse has one thread
    assert list(hosts) == ["here", "n1", "n2"]
    for rows in hosts.values():
        assert [name for name, row in rows.items() if row["verdict"] == "problem"] == []
        assert {
            "chlaunch",
            "user namespaces",
            "/dev/fuse",
            "squashfuse",
            "/dev/shm",
            "/tmp",
            "srun --mpi=",
        } <= set(rows)
        assert rows["chlaunch"]["found"] == hosts["here"]["chlaunch"]["found"]
    assert hosts["n1"]["slurmd"]["verdict"] == "ok"


def test_table(cluster: Cluster) -> None:
    # inside a job, whose variables must not make this a step of it; and in a directory that nodes lack
    command = f"salloc -Q -N1 {CH_SITE} check --nodes=n2"
    done = cluster.run(command, cwd="/run/user")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert "  ok       all              user namespaces: can be made, and mounted in" in lines
    assert any(line.startswith("  ok       n2               slurmd: ") for line in lines)
    warnings = sum(line.startswith("  warning  ") for line in lines)
    assert lines[-1] == (f"{warnings} warnings" if warnings > 1 else "1 warning")


def test_no_ch_run_on_one_node(cluster: Cluster) -> None:
    with covered(cluster, "n2", f"{SCRIPTS}/ch-run", "/dev/null"):
        hosts = hosts_of(cluster, code=2)
    assert hosts["n1"]["chlaunch"]["verdict"] == "ok"
    assert hosts["n2"]["chlaunch"]["verdict"] == "problem"
    assert "ch-run none, but" in hosts["n2"]["chlaunch"]["found"]
    assert f"{SCRIPTS}/ch-run" in hosts["n2"]["ch-run"]["found"]


def test_no_chlaunch_on_one_node(cluster: Cluster) -> None:
    with covered(cluster, "n1", str(SCRIPTS), "/mnt"):
        done = cluster.run([CH_SITE, "check"])
    assert done.returncode == 2
    text = " ".join(done.stdout.split())
    assert f" problem n1 chlaunch: {SCRIPTS}/ch-doctor can't be run there: " in text
    assert "not found (exit code 127) -> install chlaunch on n1 in the same place" in text
    assert "ok here,n2 chlaunch: " in text


def test_a_node_that_hangs(cluster: Cluster) -> None:
    cluster.root("n2", "printf '#!/bin/sh\\nexec sleep 600\\n' >/run/hang; chmod 755 /run/hang")
    with covered(cluster, "n2", f"{SCRIPTS}/ch-doctor", "/run/hang"):
        hosts = hosts_of(cluster, "--deadline=5", code=2)
    assert hosts["n1"]["chlaunch"]["verdict"] == "ok"
    assert hosts["n2"]["node"]["found"] == "idle, but no answer in 5 s"
    assert cluster.run(["squeue", "--noheader", "--states=running,pending"]).stdout == ""


def test_nodes_that_take_no_jobs(cluster: Cluster) -> None:
    cluster.root(None, "scontrol update nodename=n2 state=drain reason=test")
    try:
        hosts = hosts_of(cluster, code=1)
    finally:
        cluster.root(None, "scontrol update nodename=n2 state=resume")
    (row,) = hosts["n2"].values()
    assert (row["name"], row["verdict"]) == ("node", "warning")
    assert row["found"] == "drained: not looked at"
    assert hosts["n1"]["chlaunch"]["verdict"] == "ok"


def test_a_busy_node_delays_no_other(cluster: Cluster) -> None:
    cluster.root(None, "scontrol create partition=alone nodes=ALL oversubscribe=exclusive")
    try:
        job = f"salloc -Q -p alone -N1 -w n2 {CH_SITE} check --json --partition=alone"
        done = cluster.run(job)
    finally:
        cluster.root(None, "scontrol delete partitionname=alone")
    hosts = {host["name"]: host for host in json.loads(done.stdout)["hosts"]}
    assert hosts["n2"]["rows"][0]["found"] == "allocated: not looked at"
    assert [row["name"] for row in hosts["n1"]["rows"]][:2] == ["chlaunch", "slurmd"]


def test_no_such_partition(cluster: Cluster) -> None:
    done = cluster.run([CH_SITE, "check", "--nodes=n9"])
    assert done.returncode == 31
    assert "ch-site: error: sinfo knows no node of n9 in a default partition" in done.stderr
    done = cluster.run([CH_SITE, "check", "--partition=none"])
    assert done.returncode == 31
    assert "ch-site: error: sinfo knows no node in partition none" in done.stderr
    assert "hint: sinfo --summarize" in done.stderr
