"""Ranks that join: one set of namespaces, whoever comes, goes, or is killed, and whenever."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime import Runtime

SPACES = "echo $(readlink /proc/self/ns/user) $(readlink /proc/self/ns/mnt)"  # one write: lines stay whole
PLACES = "/dev/shm/chlaunch-* /tmp/chlaunch-* /run/user/*/chlaunch"


@pytest.fixture(autouse=True)
def clean_places(runtime: Runtime) -> Iterator[None]:
    runtime.machine.root(f"rm -rf {PLACES}")
    yield
    runtime.machine.root(f"rm -rf {PLACES}")


def spaces(output: str) -> set[tuple[str, str]]:
    """Return the (user, mount) namespace pairs that `SPACES` printed."""
    inodes = re.findall(r"(user|mnt):\[(\d+)\]", output)
    assert inodes, output
    return {(user[1], mount[1]) for user, mount in zip(inodes[::2], inodes[1::2], strict=True)}


def wait_until(condition: str, runtime: Runtime, seconds: float = 20) -> None:
    """Wait until a shell condition holds on the machine."""
    runtime.machine.root(
        f"timeout {seconds} sh -c {shlex.quote(f'until {condition}; do sleep 0.01; done')}",
        timeout=seconds + 5,
    )


def test_siblings_share_and_have_equal_rights(runtime: Runtime) -> None:
    script = f"{SPACES}; grep Cap /proc/self/status >&2; sleep 0.5"
    result = runtime.shell(f"for i in 1 2 3 4; do $CH_RUN --join $IMAGE -- sh -c '{script}' & done; wait")
    assert len(spaces(result.stdout)) == 1
    capabilities = result.stderr.splitlines()
    assert len(capabilities) == 4 * 5
    assert len(set(capabilities)) == 5


@pytest.mark.parametrize(("flag", "works"), [("--join", True), ("", False)])
def test_siblings_read_each_others_memory(runtime: Runtime, flag: str, works: bool) -> None:  # noqa: FBT001
    """After exec, in both directions: creator from joiner and joiner from creator. Without joining it must fail."""
    result = runtime.shell(
        f"rm -rf /tmp/peers; mkdir /tmp/peers; for pair in 'a b' 'b a'; do "
        f"$CH_RUN {flag} $IMAGE -- $TOOLS/peers /tmp/peers $pair & done; wait"
    )
    expected = ["a read b", "b read a"]
    if not works:
        expected = [f"{name}: Read -1, expected 1048576, errno = 1" for name in "ab"]
    assert sorted(result.stdout.splitlines()) == expected


def test_tmpdir_of_slurms_first_task(runtime: Runtime) -> None:
    """Slurm 22.05 gives TMPDIR=/tmp to the first task of a node only: still the same container."""
    script = f"'{SPACES}; sleep 0.5'"
    result = runtime.shell(
        f"TMPDIR=/tmp $CH_RUN --join $IMAGE -- sh -c {script} & $CH_RUN --join $IMAGE -- sh -c {script}; wait"
    )
    assert len(spaces(result.stdout)) == 1


def test_first_rank_exits_at_once(runtime: Runtime) -> None:
    result = runtime.shell("for i in $(seq 50); do $CH_RUN --join $IMAGE -- true || echo failed; done 2>&1")
    assert (result.stdout, result.returncode) == ("", 0)
    result = runtime.shell("$TOOLS/storm 64 $CH_RUN --join $IMAGE -- true")
    assert (result.stderr, result.returncode) == ("", 0)


def test_256_ranks_at_once(runtime: Runtime) -> None:
    """They stay until all are there: a rank leaves when the 256th has written its line."""
    wait = "until [ $(wc -l </tmp/ranks) -ge 256 ]; do sleep 1; done"
    script = f"{SPACES} >>/tmp/ranks; {wait}"
    result = runtime.shell(
        f"rm -f /tmp/ranks; $TOOLS/storm 256 $CH_RUN --join $IMAGE -- sh -c '{script}'", timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = runtime.machine.run("cat /tmp/ranks; rm /tmp/ranks").stdout
    assert len({inode for kind, inode in re.findall(r"(user|mnt):\[(\d+)\]", lines)}) == 2


def step(tag: str, call: str, signal: str, at: int = 1) -> str:
    """Return a command that sends a creating rank a signal as it makes a system call for the `at`-th time."""
    inject = f"-e trace=all -e inject={call}:signal={signal}:when={at}"
    return f"strace -qq -o /dev/null {inject} $CH_RUN --join-tag={tag} $IMAGE -- sleep 0.2"


def system_calls(runtime: Runtime) -> list[str]:
    """Return the system calls that a creating rank makes until its command is there."""
    result = runtime.shell(
        "strace -qq -o /tmp/trace $CH_RUN --join-tag=count $IMAGE -- true && cat /tmp/trace && rm /tmp/trace"
    )
    names = [line.split("(")[0] for line in result.stdout.splitlines()]
    last = max(number for number, name in enumerate(names) if name == "execve")
    assert last > 50
    return names[: last + 1]


@pytest.mark.release
def test_killed_at_every_system_call(runtime: Runtime) -> None:
    """Wherever the first rank is killed, the next ones start, share, and do not wait."""
    tries = []
    names = system_calls(runtime)
    first = names.index("openat") + 1  # what comes before is libc starting
    for at in range(first, len(names) + 1):
        after = f"for i in 1 2; do timeout 5 $CH_RUN --join-tag=kill $IMAGE -- sh -c '{SPACES}; sleep 0.02' & done; wait"
        tries.append(f"({step('kill', 'all', 'KILL', at)}; :) >/dev/null 2>&1; echo call {at}; {after}")
    result = runtime.shell("\n".join(tries), timeout=240)
    assert result.stderr == ""
    parts = re.split(r"call \d+\n", result.stdout)[1:]
    assert len(parts) == len(tries)
    for at, part in enumerate(parts, first):
        assert len(re.findall("user:", part)) == 2, f"call {at}: {part}"


def test_killed_at_the_lock_while_others_wait(runtime: Runtime) -> None:
    """A creator is stopped while it holds the lock; ranks that wait for it go on when it is killed."""
    for call in ("flock", "unshare", "pivot_root"):
        tag = f"hold-{call}"
        stopped = runtime.machine.popen(
            ["bash", "-c", step(tag, call, "STOP")], env={"CH_RUN": runtime.ch_run, "IMAGE": runtime.image}
        )
        wait_until('grep -q "FLOCK .* $(pgrep -x ch-run || echo none) " /proc/locks', runtime)
        pid = runtime.machine.root("pgrep -x ch-run").stdout.strip()
        waiting = runtime.machine.popen(
            [
                "bash",
                "-c",
                f"for i in 1 2 3; do $CH_RUN --join-tag={tag} $IMAGE -- sh -c '{SPACES}; sleep 0.5' & done; wait",
            ],
            env={"CH_RUN": runtime.ch_run, "IMAGE": runtime.image},
        )
        wait_until("[ $(grep -c -- '-> FLOCK' /proc/locks) -ge 3 ]", runtime)
        runtime.machine.root(f"kill -KILL {pid}")
        output, errors = waiting.communicate(timeout=20)
        stopped.communicate(timeout=20)
        assert errors == ""
        assert len(re.findall("user:", output)) == 3
        assert len(spaces(output)) == 1


def test_long_wait_names_the_holder(runtime: Runtime) -> None:
    script = (
        "mkdir -m 700 -p /dev/shm/chlaunch-$(id -u); $CH_RUN --join-tag=slow $IMAGE -- true; "
        "exec 9</dev/shm/chlaunch-$(id -u)/slow*; flock 9; (sleep 11; kill $BASHPID) & holder=$$; "
        "$CH_RUN --join-tag=slow $IMAGE -- true 9<&- & rank=$!; sleep 11; flock -u 9; wait $rank; echo $?"
    )
    result = runtime.shell(script)
    assert result.stdout.strip() == "0"
    assert re.search(r"warning: join: waiting for slow\.\S+, held by process \d+", result.stderr)


def test_stale_file_with_a_recycled_pid(runtime: Runtime) -> None:
    """The file names a living process that is somebody else: other start time, other namespaces."""
    first = runtime.output(SPACES, "--join-tag=stale")
    result = runtime.shell(
        "sleep 30 & file=$(ls /dev/shm/chlaunch-$(id -u)/stale*); "
        # the PID is at byte 32 of the first record, which is behind a header of 32 bytes
        "printf $(printf '\\\\x%02x\\\\x%02x' $(($! & 255)) $(($! >> 8))) | "
        "dd of=$file bs=1 seek=64 conv=notrunc status=none; "
        f"$CH_RUN -v --join-tag=stale $IMAGE -- sh -c '{SPACES}'; kill $!"
    )
    assert result.returncode == 0
    assert "entered" not in result.stderr
    assert len(spaces(first) | spaces(result.stdout)) == 2


@pytest.mark.parametrize(
    "damage", ["echo nonsense", "head -c 1000000 /dev/urandom", "true", "printf hlaunch1"]
)
def test_damaged_file(runtime: Runtime, damage: str) -> None:
    runtime.output("true", "--join-tag=damaged")
    result = runtime.shell(
        f"{damage} >$(ls /dev/shm/chlaunch-$(id -u)/damaged*); for i in 1 2; do "
        f"$CH_RUN --join-tag=damaged $IMAGE -- sh -c '{SPACES}; sleep 0.3' & done; wait"
    )
    assert result.stderr == ""
    assert len(spaces(result.stdout)) == 1


def test_jobs_and_users_do_not_mix(runtime: Runtime) -> None:
    """All are step 0: two jobs of alice, one of bob with the number of alice's."""
    seen = []
    for user, job in (("alice", "1"), ("alice", "2"), ("bob", "1")):
        env = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "CH_RUN": runtime.ch_run, "IMAGE": runtime.image}
        script = f"for i in 1 2; do $CH_RUN --join $IMAGE -- sh -c '{SPACES}; sleep 1' & done; wait"
        seen.append(runtime.machine.popen(["bash", "-c", script], env=env, user=user))
    outputs = [process.communicate(timeout=20) for process in seen]
    assert [errors for _, errors in outputs] == [""] * 3
    jobs = [spaces(output) for output, _ in outputs]
    assert [len(job) for job in jobs] == [1, 1, 1]
    assert len(set.union(*jobs)) == 3


def test_two_images_share_the_user_namespace(runtime: Runtime) -> None:
    other = runtime.copy_image("other")
    result = runtime.shell(
        f"for image in $IMAGE {other} $IMAGE {other}; do $CH_RUN --join $image -- sh -c '{SPACES}; sleep 0.5' & done; wait"
    )
    assert result.stderr == ""
    pairs = spaces(result.stdout)
    assert len({user for user, _ in pairs}) == 1
    assert len({mount for _, mount in pairs}) == 2


def test_other_ids_are_refused(runtime: Runtime) -> None:
    result = runtime.shell(
        "$CH_RUN --join-tag=ids $IMAGE -- sh -c 'touch /tmp/ids; sleep 2' & until [ -e /tmp/ids ]; do :; done; "
        "$CH_RUN --join-tag=ids --uid=0 $IMAGE -- true; echo $?; wait; rm /tmp/ids"
    )
    assert result.stdout == "31\n"
    assert re.search(
        r"the ranks that are already here have other IDs: process \d+ has uid \d+", result.stderr
    )
    assert "[CH-0063]" in result.stderr


@pytest.mark.release
def test_nested_ranks_meet_below(runtime: Runtime) -> None:
    """Ranks that are in a container already can join in an inner one."""
    inner = f"for i in 1 2; do {runtime.ch_run} --join-tag=n {runtime.image} -- sh -c '{SPACES}; sleep 0.5' & done; wait"
    words = ["-b", runtime.ch_run, "-b", runtime.image, "--join-tag=n"]
    result = runtime(*words, runtime.image, "--", "sh", "-c", inner)
    assert result.stderr == ""
    assert len(spaces(result.stdout)) == 1


PLANTED = {
    "link": "ln -s /tmp {}",
    "file": "touch {}",
    "directory": "mkdir -m 777 {}",
    "dangling link": "ln -s /tmp/planted {}",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_by_a_stranger(runtime: Runtime, kind: str) -> None:
    """What bob put at alice's place is left alone, and alice's ranks meet elsewhere."""
    uid = runtime.machine.run("id -u").stdout.strip()
    path = f"/dev/shm/chlaunch-{uid}"
    runtime.machine.run(PLANTED[kind].format(path), user="bob", check=True)
    before = runtime.machine.root(f"stat {path}; ls -A {path} /tmp/planted 2>&1 || true").stdout
    result = runtime.shell(
        f"for i in 1 2; do $CH_RUN --join $IMAGE -- sh -c '{SPACES}; sleep 0.3' & done; wait"
    )
    assert result.stderr == ""
    assert len(spaces(result.stdout)) == 1
    after = runtime.machine.root(f"stat {path}; ls -A {path} /tmp/planted 2>&1 || true").stdout
    assert re.sub("Access: .*", "", after) == re.sub("Access: .*", "", before)


def test_strangers_hold_every_place(runtime: Runtime) -> None:
    uid = runtime.machine.run("id -u").stdout.strip()
    bob = runtime.machine.run("id -u", user="bob").stdout.strip()
    runtime.machine.run(f"mkdir /dev/shm/chlaunch-{uid} /tmp/chlaunch-{uid}", user="bob", check=True)
    runtime.machine.run("touch /run/user/$(id -u)/chlaunch", check=True)
    result = runtime.sh("true", "--join")
    assert result.returncode == 31
    assert f"/tmp/chlaunch-{uid}: of user {bob}, mode" in result.stderr
    assert "[CH-0060]" in result.stderr
    assert result.stderr.count("\n") == 2


def test_link_at_the_file(runtime: Runtime) -> None:
    """Even a link of one's own is not followed."""
    runtime.output("true", "--join-tag=linked")
    result = runtime.shell(
        "cd /dev/shm/chlaunch-$(id -u); echo kept >~/victim; file=$(ls); rm $file; ln -s ~/victim $file; "
        f"for i in 1 2; do $CH_RUN --join-tag=linked $IMAGE -- sh -c '{SPACES}; sleep 0.3' & done; wait; cat ~/victim"
    )
    assert result.stderr == ""
    assert result.stdout.endswith("kept\n")
    assert len(spaces(result.stdout)) == 1


def test_full_shm(runtime: Runtime) -> None:
    """With no room for the records they are kept at the next place; late ranks, when there is room, find them."""
    runtime.machine.root("mount -t tmpfs -o size=64k,mode=1777 tmpfs /dev/shm")
    try:
        runtime.machine.run("dd if=/dev/zero of=/dev/shm/fill bs=4k 2>/dev/null", check=False)
        result = runtime.shell(
            f"run() {{ $CH_RUN --join-tag=full $IMAGE -- sh -c '{SPACES}; sleep 1'; }}; "
            "run & run & sleep 0.5; rm /dev/shm/fill; run & wait"
        )
        assert result.stderr == ""
        assert len(re.findall("user:", result.stdout)) == 3
        assert len(spaces(result.stdout)) == 1
    finally:
        runtime.machine.root("umount /dev/shm")


def test_no_shm(runtime: Runtime) -> None:
    runtime.machine.root("mount -t tmpfs -o size=64k,mode=0755 tmpfs /dev/shm")
    try:
        result = runtime.shell(
            f"for i in 1 2; do $CH_RUN -j $IMAGE -- sh -c '{SPACES}; sleep 0.5' & done; wait"
        )
        assert result.stderr == ""
        assert len(spaces(result.stdout)) == 1
    finally:
        runtime.machine.root("umount /dev/shm")


def test_dead_tags_are_cleared_away(runtime: Runtime) -> None:
    result = runtime.shell(
        "$CH_RUN --join-tag=alive $IMAGE -- sleep 5 & until ls /dev/shm/chlaunch-*/alive* >/dev/null 2>&1; do :; done; "
        "for i in $(seq 6); do $CH_RUN --join-tag=dead$i $IMAGE -- true; done; ls /dev/shm/chlaunch-$(id -u); kill $!"
    )
    names = [name.split(".")[0] for name in result.stdout.split()]
    assert sorted(names) == ["alive", "dead6"]


def test_later_ranks_find_any_living_member(runtime: Runtime) -> None:
    """The creator has gone, a later rank lives on: newcomers still enter the same namespaces."""
    script = (
        'run() { $CH_RUN --join-tag=chain $IMAGE -- sh -c "$1"; }; '
        f"run '{SPACES}; echo >/tmp/up; read x </tmp/a' & until [ -e /tmp/up ]; do :; done; rm /tmp/up; "
        f"run '{SPACES}; echo >/tmp/up; read x </tmp/b' & until [ -e /tmp/up ]; do :; done; echo >/tmp/a; wait %1; "
        f"run '{SPACES}'; echo >/tmp/b; wait"
    )
    result = runtime.shell(f"rm -f /tmp/a /tmp/b; mkfifo /tmp/a /tmp/b; {script}")
    assert len(re.findall("user:", result.stdout)) == 3
    assert len(spaces(result.stdout)) == 1
