"""ch-doctor on a real machine, as its user: well, and with faults that are really there."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from machine import CHECKOUT
from runtime import TOOLS

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import Runtime

# ch-run itself is measured with, bound into an image that has no library: it must be static.
pytestmark = pytest.mark.release

CH_DOCTOR = CHECKOUT / ".venv/bin/ch-doctor"


# As it is on a machine without udev's rules; by root, in a mount namespace.
CLOSED_FUSE = "mknod -m 600 /run/closed c 10 229; mount --bind /run/closed /dev/fuse; rm /run/closed"


class Report(NamedTuple):
    """What ch-doctor said, by the rows' names, and its exit code."""

    code: int
    rows: dict[str, dict[str, Any]]

    def verdict(self, name: str) -> str:
        """Return the verdict of a row."""
        return str(self.rows[name]["verdict"])

    def problems(self) -> list[str]:
        """Return the names of the rows that are problems."""
        return [name for name in self.rows if self.verdict(name) == "problem"]


def examine(runtime: Runtime, *words: object, before: str = "", root: str = "", **variables: str) -> Report:
    """Run ch-doctor as alice, after shell lines of hers, and of root in a mount namespace of its own."""
    alice = next(user for user in runtime.machine.users if user.name == "alice")
    environment = {"HOME": alice.home, "USER": "alice", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    environment |= {"CH_IMAGE_STORAGE": f"{alice.home}/storage", **variables}
    identity = f"setpriv --reuid={alice.uid} --regid={alice.uid} --init-groups --inh-caps=-all"
    settings = shlex.join(f"{name}={value}" for name, value in environment.items())
    command = shlex.join(map(str, [CH_DOCTOR, "--json", *words]))
    script = f"{root}\nexec {identity} env -i -C {alice.home} {settings} /bin/sh -euc {shlex.quote(f'{before} exec {command}')}"
    done = runtime.machine.root(
        ["unshare", "--mount", "--propagation=private", "sh", "-euc", script], check=False
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["rows"]}
    assert len(rows) == len(report["rows"])
    assert done.returncode == ("ok", "warning", "problem").index(report["verdict"])
    return Report(done.returncode, rows)


def test_all_is_well(runtime: Runtime) -> None:
    report = examine(runtime)
    assert report.problems() == []
    for name in ("user namespaces", "ch-run", "memory, joined", "memory, not joined", "overlay", "/dev/fuse"):
        assert report.verdict(name) == "ok", report.rows[name]
    assert "cross-memory attach" in report.rows["memory, joined"]["found"]
    assert "keep to ch-launch" in report.rows["memory, not joined"]["found"]
    assert report.rows["Slurm"]["found"].startswith("not here")
    assert runtime.machine.run("ls -A /tmp | grep ch-doctor; ls -A ~ | grep ch-doctor").stdout == ""


def test_words_for_people(runtime: Runtime) -> None:
    done = runtime.machine.run([CH_DOCTOR], env={"CH_IMAGE_STORAGE": "/home/alice/storage"})
    assert done.stderr == ""
    assert done.stdout.startswith("host\n  ok       user namespaces: ")
    assert "\n\nlaunchers\n  ok       Slurm: not here: " in done.stdout


def test_many_faults_at_once(runtime: Runtime) -> None:
    root = f"""
    {CLOSED_FUSE}
    mount -t tmpfs -o size=8m,mode=1777 tmpfs /dev/shm
    mount --bind {runtime.image} {runtime.image}
    mount -o remount,bind,noexec {runtime.image}
    mkdir -p /run/home
    mount -t tmpfs -o size=1m,mode=1777,noexec tmpfs /run/home
    """
    report = examine(runtime, runtime.image, root=root, PATH="/nowhere:/sbin", HOME="/run/home")
    assert report.code == 2
    assert {"/dev/shm", "noexec mounts"} <= set(report.problems())
    assert runtime.image in report.rows["noexec mounts"]["found"]
    assert "/run/home (home)" in report.rows["noexec mounts"]["found"]
    assert report.verdict("/dev/fuse") == "warning"
    assert "0600" in report.rows["/dev/fuse"]["found"]
    assert "chmod 666 /dev/fuse" in report.rows["/dev/fuse"]["remedy"]
    assert "/nowhere" not in report.rows["squashfuse"]["found"]
    assert "no squashfuse_ll in PATH" in report.rows["squashfuse"]["found"]
    # The program is not the image's, so it runs all the same.
    assert report.verdict("memory, joined") == "ok"


def test_an_image_file_needs_fuse(runtime: Runtime, squashfs: str) -> None:
    report = examine(runtime, squashfs)
    assert (report.verdict("memory, joined"), report.verdict("/dev/fuse")) == ("ok", "ok")
    assert report.rows["MPI"]["found"] == "no MPI"
    broken = examine(runtime, squashfs, root=CLOSED_FUSE)
    assert {"/dev/fuse", "memory, joined", "memory, not joined"} <= set(broken.problems())
    assert "[CH-0070]" in broken.rows["memory, joined"]["found"]
    runtime.await_no_servers()


def test_no_more_user_namespaces(runtime: Runtime) -> None:
    inside = f"echo 0 >/proc/sys/user/max_user_namespaces; exec {CH_DOCTOR} --json"
    done = runtime.machine.run(["unshare", "--user", "--map-root-user", "sh", "-c", inside])
    report = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert done.returncode == 2
    row = report["user namespaces"]
    assert row["verdict"] == "problem"
    assert "the limit user.max_user_namespaces is 0" in row["found"]
    assert row["remedy"].startswith("as root: sysctl user.max_user_namespaces=65536")
    assert "[CH-0021]" in report["ch-run"]["remedy"]
    assert "[CH-0021]" in report["memory, joined"]["found"]


@pytest.mark.parametrize(
    ("denied", "row", "verdict", "found"),
    [
        ("1 272", "user namespaces", "problem", "can't make a user namespace"),
        ("38 310", "memory, joined", "problem", "Function not implemented"),
        ("38 428", "mount API", "ok", "not the new one"),
    ],
    ids=["unshare", "process_vm_readv", "open_tree"],
)
def test_denied_calls(runtime: Runtime, denied: str, row: str, verdict: str, found: str) -> None:
    report = examine(runtime, before=f"exec {TOOLS}/deny {denied} {CH_DOCTOR} --json;")
    assert report.verdict(row) == verdict, report.rows[row]
    assert found in report.rows[row]["found"]


def test_a_program_that_may_not_be_read(runtime: Runtime) -> None:
    copy = f"install -m 711 {runtime.ch_run} /run/ch-run"
    report = examine(runtime, root=copy, CHLAUNCH_CH_RUN="/run/ch-run")
    runtime.machine.root(["rm", "/run/ch-run"])
    assert report.verdict("ch-run") == "problem"
    assert report.rows["ch-run"]["remedy"].startswith("chmod a+r /run/ch-run")


def test_no_ch_run(runtime: Runtime) -> None:
    report = examine(runtime, CHLAUNCH_CH_RUN="/no/ch-run")
    assert {"ch-run", "memory, joined", "memory, not joined"} <= set(report.problems())
    assert report.verdict("overlay") == "ok"


def test_configuration(runtime: Runtime) -> None:
    report = examine(
        runtime,
        before="mkdir -p config/chlaunch; echo '[no-such]' >config/chlaunch/config.toml;",
        XDG_CONFIG_HOME="/home/alice/config",
    )
    assert report.problems() == ["configuration"]
    assert "config.toml:1" in report.rows["configuration"]["found"]


def test_storage_of_others(runtime: Runtime) -> None:
    report = examine(runtime, CH_IMAGE_STORAGE="/usr")
    assert report.problems() == ["storage"]
    assert "belongs to user 0" in report.rows["storage"]["found"]
    report = examine(runtime, before="mkdir -p full; touch full/x;", CH_IMAGE_STORAGE="/home/alice/full")
    assert report.verdict("storage") == "warning"


def test_an_image_by_its_name(runtime: Runtime) -> None:
    make = (
        f"mkdir -p by-name/images/tiny+1 by-name/l; [ -d by-name/l/1 ] || cp -a {runtime.image} by-name/l/1;"
    )
    make += "echo 1 >by-name/images/tiny+1/layers;"
    report = examine(runtime, "tiny:1", before=make, CHLAUNCH_STORAGE="/home/alice/by-name")
    assert report.verdict("memory, joined") == "ok", report.rows
    assert "images: 1;" in report.rows["storage"]["found"]
    assert report.verdict("MPI") == "ok"


def test_an_image(runtime: Runtime, image_ompi4: Path) -> None:
    report = examine(runtime, image_ompi4, "--", "mpirun")
    assert report.rows["MPI"]["found"].startswith("Open MPI 4.1.4")
    assert report.verdict("architecture") == "ok"
    assert "PMIx 4.2.2" in report.rows["libraries"]["found"]
    taken, other = "mpirun", "guest"
    if "is Open MPI 4." not in report.rows["mpirun"]["found"]:  # a newer one can't start ranks of Open MPI 4
        taken, other = other, taken
        assert "can't start the ranks of Open MPI 4.1.4" in report.rows["--ch-launcher=mpirun"]["found"]
    assert report.verdict(f"ch-launch takes {taken}") == "ok"
    assert report.verdict(f"--ch-launcher={other}") == "ok"
    assert "refused: srun --mpi=list names no plugin" in report.rows["--ch-launcher=srun"]["found"]
    assert report.problems() == []


def test_a_foreign_image(runtime: Runtime) -> None:
    path = runtime.copy_image(
        "foreign",
        "rm -f usr/bin/app && printf '\\177ELF\\2\\1\\1' >app && head -c 11 /dev/zero >>app && mkdir -p lib64",
    )
    machine = runtime.machine
    machine.run(["python3", "-c", FOREIGN, f"{path}/app"], check=True)
    report = examine(runtime, path, "--", "/app")
    assert report.verdict("architecture") == "problem"
    assert "aarch64, and this is x86_64" in report.rows["architecture"]["found"]


# An ELF program of 64 bytes and a segment, for aarch64
FOREIGN = """
import struct, sys
head = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\\x7fELF", 2, 1, 1, 0, 2, 183, 1, 0x400078, 64, 0, 0, 64, 56, 1, 64, 0, 0)
load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)
open(sys.argv[1], "wb").write(head + load)
"""


def test_no_image(runtime: Runtime) -> None:
    report = examine(runtime, "/no/such")
    assert {"image", "ch-launch"} <= set(report.problems())
    assert report.verdict("user namespaces") == "ok"
