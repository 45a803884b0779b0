"""Bad input: one clear error that names the thing, the reason and the remedy, and a documented exit code."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from runtime import Runtime

FORM = re.compile(r"ch-run\[\d+\]: error: (.+) \([a-z_-]+\.c:\d+(?: \d+ E[A-Z0-9]+)?\)")


def assert_fails(
    runtime: Runtime, words: list[str], status: int, code: str, message: str, **options: Any
) -> None:
    """Run ch-run: it must say this in two lines, in the form that ch-run(1) promises, and nothing else."""
    assert_failed(runtime(*words, **options), status, code, message)


def assert_failed(result: subprocess.CompletedProcess[str], status: int, code: str, message: str) -> None:
    """Check the two lines."""
    lines = result.stderr.splitlines()
    assert result.returncode == status, result
    found = FORM.fullmatch(lines[0])
    assert found, lines
    assert found[1] == message
    assert re.fullmatch(rf"ch-run\[\d+\]: hint: .+ \[{code}\]", lines[1])
    assert len(lines) == 2
    assert result.stdout == ""


def test_image(runtime: Runtime) -> None:
    run = ["--", "true"]
    missing = "can't find image: /no/image: No such file or directory"
    assert_fails(runtime, ["/no/image", *run], 31, "CH-0010", missing)
    assert_fails(runtime, ["/etc/passwd", *run], 31, "CH-0012", "unknown image type: /etc/passwd")
    closed = "can't open image: /home/bob/x: Permission denied"
    assert_fails(runtime, ["/home/bob/x", *run], 31, "CH-0013", closed)


def test_image_without_mount_points(runtime: Runtime) -> None:
    missing = "not the root of an image, a directory to mount on is missing"
    for name in ("dev", "proc", "sys"):
        image = runtime.copy_image("broken", f"rmdir {name}")
        words = [image, "--", "true"]
        assert_fails(runtime, words, 31, "CH-0014", f"{missing}: /{name}: No such file or directory")
        image = runtime.copy_image("broken", f"rmdir {name} && touch {name}")
        kind = "can't bind: a directory and a file can't cover each other"
        assert_fails(runtime, words, 31, "CH-0033", f"{kind}: /{name}")


def test_bind(runtime: Runtime) -> None:
    run = [runtime.image, "--", "true"]
    absent = "can't bind: source not found: /no/source: No such file or directory"
    assert_fails(runtime, ["-b", "/no/source", *run], 31, "CH-0031", absent)
    kind = "can't bind: a directory and a file can't cover each other"
    assert_fails(runtime, ["-b", "/etc/passwd:/mnt", *run], 31, "CH-0033", f"{kind}: /mnt")
    assert_fails(runtime, ["-b", "/mnt:/etc/passwd", *run], 31, "CH-0033", f"{kind}: /etc/passwd")
    target = "can't bind: can't reach or make destination"
    for word, message in {
        "/mnt:/": "/: must be absolute, and not /",
        "/mnt:rel": "rel: must be absolute, and not /",
        "/mnt:/no/../x": "/no/../x: '..' below a directory that does not exist",
        "/mnt:/etc/passwd/x": "/etc/passwd/x: Not a directory",
    }.items():
        assert_fails(runtime, ["-b", word, *run], 31, "CH-0032", f"{target}: {message}")


def test_bind_through_links(runtime: Runtime) -> None:
    image = runtime.copy_image("links", "ln -s loop2 loop1; ln -s loop1 loop2; ln -s ../../../../etc climb")
    loop = "can't bind: can't reach or make destination: /loop1/x: Too many levels of symbolic links"
    assert_fails(runtime, ["-b", "/mnt:/loop1/x", image, "--", "true"], 31, "CH-0032", loop)
    assert runtime("-b", "/mnt:/climb/made", image, "--", "ls", "-d", "/etc/made").stdout == "/etc/made\n"
    assert not runtime.machine.outside("/etc/made").exists()


def test_crowded_and_covered(runtime: Runtime) -> None:
    image = runtime.copy_image("crowded", "mkdir many && cd many && seq 1000 | xargs touch")
    crowded = "can't bind: too many files beside the missing destination: /many/x"
    assert_fails(runtime, ["-b", "/mnt:/many/x", image, "--", "true"], 31, "CH-0035", crowded)
    runtime.machine.run("mkdir -p ~/data", check=True)
    inside = "can't bind: destination missing inside another mount: /mnt/sub/missing"
    words = ["-b", "data:/mnt", "-b", "data:/mnt/sub/missing", runtime.image, "--", "true"]
    assert_fails(runtime, words, 31, "CH-0034", inside)


def test_directory_and_environment(runtime: Runtime) -> None:
    run = [runtime.image, "--", "true"]
    where = "can't cd to initial working directory: /no: No such file or directory"
    assert_fails(runtime, ["--cd=/no", *run], 31, "CH-0050", where)
    file = "can't read environment file"
    assert_fails(runtime, ["--set-env=/no", *run], 31, "CH-0051", f"{file}: /no: No such file or directory")
    endless = f"{file}: /dev/zero: not a file of at most 1 MiB"
    assert_fails(runtime, ["--set-env=/dev/zero", *run], 31, "CH-0051", endless)
    own = f"{file}: /ch/environment: No such file or directory"
    assert_fails(runtime, ["--set-env", *run], 31, "CH-0051", own)
    runtime.machine.run("echo nonsense >~/bad", check=True)
    line = "can't parse variable, no '=': /home/alice/bad: nonsense"
    assert_fails(runtime, ["--set-env=/home/alice/bad", *run], 31, "CH-0052", line)


def test_home(runtime: Runtime) -> None:
    result = runtime.shell("unset HOME; $CH_RUN --home $IMAGE -- true")
    assert_failed(result, 31, "CH-0036", "can't bind home directory: $HOME not set: --home")


def test_command(runtime: Runtime) -> None:
    image = runtime.copy_image(
        "programs",
        "printf '#!/no/interpreter -x\\n' >script && chmod +x script && touch plain && mkdir directory && "
        "printf 'echo shell ran $1\\n' >text && chmod +x text && "
        "cp usr/bin/busybox arm && printf '\\267' | dd of=arm bs=1 seek=18 conv=notrunc 2>/dev/null && "
        "head -c 100 /dev/zero >zeros && chmod +x zeros",
    )
    runtime.machine.run(f"cp /bin/true {image}/dynamic", check=True)  # needs ld.so, which the image lacks
    missing = "can't exec: command not found in the image"
    needs = "can't exec: its interpreter is not in the image: /script needs /no/interpreter"
    other = "can't exec: built for another architecture: /arm: for arm64, this is x86-64: Exec format error"
    for command, code, message in (
        ("nosuch", "CH-0080", f"{missing}: nosuch: No such file or directory"),
        ("/no/such", "CH-0080", f"{missing}: /no/such: No such file or directory"),
        ("/directory", "CH-0082", "can't exec: is a directory: /directory: Permission denied"),
        ("/plain", "CH-0083", "can't exec: not executable: /plain: mode 0644: Permission denied"),
        ("/script", "CH-0085", f"{needs}: No such file or directory"),
        ("/arm", "CH-0086", other),
        ("/zeros", "CH-0088", "can't exec: neither a program nor a script: /zeros: Exec format error"),
        ("", "CH-0080", f"{missing}: : No such file or directory"),
    ):
        assert_fails(runtime, [image, "--", command], 49, code, message)
    result = runtime(image, "--", "/dynamic")
    assert "its interpreter is not in the image: /dynamic needs /lib" in result.stderr
    assert runtime(image, "--", "/text", "here").stdout == "shell ran here\n"


def test_wildcard_that_the_hosts_shell_expanded(runtime: Runtime) -> None:
    result = runtime.shell("$CH_RUN $IMAGE -- /usr/bin/g*")
    message = (
        "can't exec: command not found in the image, and the words look like files of the host: /usr/bin/g"
    )
    assert result.returncode == 49
    assert message in result.stderr
    assert "[CH-0081]" in result.stderr


def test_too_long(runtime: Runtime) -> None:
    result = runtime.shell("printf 'BIG=%0200000d' 0 >~/big; $CH_RUN --set-env=$HOME/big $IMAGE -- /bin/true")
    message = "can't exec: arguments and environment are too long: /bin/true: Argument list too long"
    assert_failed(result, 49, "CH-0089", message)


def test_other_refusals(runtime: Runtime) -> None:
    """What no row of the table explains is said as the kernel says it."""
    image = runtime.copy_image("busy", "cp usr/bin/busybox written")
    result = runtime.shell(f"exec 3>>{image}/written; $CH_RUN {image} -- /written")
    assert_failed(result, 49, "CH-0090", "can't exec: /written: Text file busy")


def test_emulator_out_of_reach(runtime: Runtime) -> None:
    """binfmt_misc knows an emulator that is not in the image, and was not told to keep it open (flag F)."""
    image = runtime.copy_image(
        "foreign",
        "cp usr/bin/busybox arm && printf '\\267' | dd of=arm bs=1 seek=18 conv=notrunc 2>/dev/null",
    )
    machine = runtime.machine
    entry = r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00::/nowhere/qemu:"
    machine.root("mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc")
    try:
        machine.outside("/proc/sys/fs/binfmt_misc/register").write_text(entry)
        message = "can't exec: built for another architecture, and its emulator can't be reached: /arm: for arm64, this is x86-64: "
        result = runtime(image, "--", "/arm")
        assert result.returncode == 49
        assert message in result.stderr
        assert "[CH-0087]" in result.stderr
    finally:
        machine.outside("/proc/sys/fs/binfmt_misc/qemu-aarch64").write_text("-1")
        machine.root("umount /proc/sys/fs/binfmt_misc")


def test_noexec(runtime: Runtime) -> None:
    runtime.machine.root(
        f"mkdir -p /tmp/noexec && mount -t tmpfs -o noexec,mode=1777 tmpfs /tmp/noexec && cp {runtime.image}/usr/bin/busybox /tmp/noexec"
    )
    try:
        message = "can't exec: on a file system mounted noexec: /tmp/noexec/busybox: Permission denied"
        assert_fails(runtime, [runtime.image, "--", "/tmp/noexec/busybox"], 49, "CH-0084", message)
    finally:
        runtime.machine.root("umount /tmp/noexec")


def test_join_pid(runtime: Runtime) -> None:
    run = [runtime.image, "--", "true"]
    start = "join: can't join the namespaces of process"
    stranger = f"{start}: 1: /proc/1/ns/user not found: Permission denied"
    assert_fails(runtime, ["--join-pid=1", *run], 31, "CH-0065", stranger)
    dead = f"{start}: 4194303: /proc/4194303/ns/user not found: No such file or directory"
    assert_fails(runtime, ["--join-pid=4194303", *run], 31, "CH-0065", dead)


def test_no_user_namespaces(runtime: Runtime) -> None:
    """What a host that forbids them answers: unshare(2), number 272 on x86-64, with EPERM."""
    result = runtime.shell("$TOOLS/deny 1 272 $CH_RUN $IMAGE -- true")
    forbidden = "can't make a user namespace: unshare(CLONE_NEWUSER): Operation not permitted"
    assert_failed(result, 31, "CH-0020", forbidden)
    assert "kernel.apparmor_restrict_unprivileged_userns" in result.stderr
    result = runtime.shell("$TOOLS/deny 28 272 $CH_RUN $IMAGE -- true")
    limit = "can't make another user namespace: unshare(CLONE_NEWUSER): No space left on device"
    assert_failed(result, 31, "CH-0021", limit)
    assert "user.max_user_namespaces" in result.stderr


@pytest.mark.release
def test_ids_that_can_not_be_mapped(runtime: Runtime) -> None:
    """What AppArmor's restriction of Ubuntu 24.04 does: the namespace is made, its maps are closed."""
    inject = "strace -qq -o /dev/null -e inject=openat:error=EACCES:when=3"
    result = runtime.shell(f"{inject} $CH_RUN $IMAGE -- true")
    assert_failed(
        result, 31, "CH-0022", "can't map user and group IDs: /proc/self/uid_map: Permission denied"
    )


def test_kernel_that_refuses(runtime: Runtime) -> None:
    """mount(2) is 165 on x86-64, prctl(2) 157; 13 is EACCES, which no other call makes good for."""
    result = runtime.shell("$TOOLS/deny 13 165 $CH_RUN $IMAGE -- true")
    message = "can't mount: tmpfs, mode=0755,size=16m: Permission denied"
    assert_failed(result, 31, "CH-0030", message)
    result = runtime.shell("$TOOLS/deny 1 157 $CH_RUN $IMAGE -- true")
    assert_failed(result, 31, "CH-0001", "can't go on: no_new_privs: Operation not permitted")


@pytest.mark.release
def test_memory_that_ends(runtime: Runtime) -> None:
    image = runtime.copy_image("commanded", "mkdir ch && touch ch/entrypoint")
    result = runtime.shell(
        f"strace -qq -o /dev/null -e inject=mmap:error=ENOMEM -e inject=brk:retval=0:when=6+ $CH_RUN {image}"
    )
    assert_failed(result, 31, "CH-0002", "out of memory: command: Cannot allocate memory")


def test_hint_for_programs_with_rights(runtime: Runtime) -> None:
    """A set-user-ID program starts, and does not have what it wants: said before it wonders."""
    image = runtime.copy_image(
        "setuid", "rm usr/bin/ping; cp usr/bin/busybox usr/bin/ping && chmod u+s usr/bin/ping"
    )
    result = runtime(image, "--", "ping")
    hint = "hint: set-user-ID and file capabilities have no effect in a container: /usr/bin/ping: "
    assert hint in result.stderr
    assert "net.ipv4.ping_group_range" in result.stderr
    assert "[CH-0102]" in result.stderr
    assert "hint" not in runtime(image, "--", "true").stderr


def test_every_code_is_provoked(ch_run: Path) -> None:
    """Each row of the table is somewhere in these tests, as an expectation."""
    rows = subprocess.run([ch_run, "--errors", "--json"], capture_output=True, text=True, check=True)
    table = json.loads(rows.stdout)
    here = Path(__file__)
    tests = "".join(file.read_text() for file in here.parents[1].glob("*/test_*.py"))
    assert [row["code"] for row in table if f"{row['code']}" not in tests] == []
    assert len({row["code"] for row in table}) == len(table)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no image; write"),
        (["--no-such-option", "IMAGE", "--", "true"], "unrecognized option '--no-such-option'"),
        (["--uid=-1", "IMAGE", "--", "true"], "--uid: not a whole number from 0 to 4294967294: -1"),
        (["--uid=alice", "IMAGE", "--", "true"], "--uid: not a whole number"),
        (["--bind=", "IMAGE", "--", "true"], "--bind: write SRC or SRC:DST"),
        (["--env-default=X", "IMAGE", "--", "true"], "write VAR=VALUE: X"),
        (["--join-tag=", "IMAGE", "--", "true"], "--join-tag: empty"),
        (["-j", "--join-pid=1", "IMAGE", "--", "true"], "exclude each other"),
    ],
)
def test_usage(runtime: Runtime, words: list[str], message: str) -> None:
    result = runtime(*[runtime.image if word == "IMAGE" else word for word in words])
    assert result.returncode == 64
    assert message in result.stderr


def test_long_tag(runtime: Runtime) -> None:
    result = runtime.sh("true", f"--join-tag={'x' * 300}")
    assert result.returncode == 64
    assert "join: tag too long" in result.stderr
    assert "[CH-0066]" in result.stderr


def test_join_that_can_not_be(runtime: Runtime) -> None:
    """Calls that fail, injected: a full disk under the records, a member that lets nobody in, an endless wait."""
    strace = "strace -qq -o /dev/null -e inject={} $CH_RUN --join-tag=bad $IMAGE -- true"
    full = runtime.shell(strace.format("pwrite64:error=ENOSPC"))
    assert full.returncode == 31
    assert "join: can't use rendezvous file: bad." in full.stderr
    assert "[CH-0061]" in full.stderr
    other = "$CH_RUN --join-tag=bad $IMAGE -- sleep 2 & sleep 0.3; "
    closed = runtime.shell(other + strace.format("setns:error=EPERM"))
    assert closed.returncode == 31
    assert "join: none of the living ranks lets us in: process " in closed.stderr
    assert "[CH-0064]" in closed.stderr
    wait = runtime.shell(other + strace.format("flock:error=EINTR"))
    assert wait.returncode == 31
    assert wait.stderr.count("warning: join: waiting for bad.") == 12
    assert "join: waited 120 s for the rendezvous file: bad." in wait.stderr
    assert "[CH-0062]" in wait.stderr


def test_mounts_that_are_forbidden(runtime: Runtime, squashfs: str) -> None:
    """What old kernels and security modules forbid to users, injected."""
    strace = "strace -qq -o /dev/null -e inject={} $CH_RUN {} -- true"
    overlay = runtime.shell(strace.format("mount:error=EPERM:when=3", "-W $IMAGE"))
    message = "this kernel lets no user mount an overlay: --write-fake: Operation not permitted"
    assert_failed(overlay, 31, "CH-0038", message)
    fuse = runtime.shell(strace.format("fsmount:error=EACCES", squashfs))
    assert_failed(fuse, 31, "CH-0072", f"can't mount image file: {squashfs}: Permission denied")


def test_features(runtime: Runtime) -> None:
    for name in ("squash", "seccomp", "overlayfs", "extglob", "json"):
        assert runtime(f"--feature={name}").returncode == 0
    assert_fails(runtime, ["--feature=gc"], 87, "CH-0091", "feature not in this ch-run: gc")
    assert json.loads(runtime("--version", "--json").stdout)["features"].count("squash") == 1


def test_hint_of_singletons(runtime: Runtime) -> None:
    tasks = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}
    for words in ((), ("-j",)):
        result = runtime.sh("true", *words, env=tasks)
        assert (
            "hint: several tasks, but srun gives no PMI: 4: an MPI program would run as separate"
            in result.stderr
        )
        assert "[CH-0100]" in result.stderr
    for change in (
        {"SLURM_PROCID": "1"},
        {"PMI_FD": "7"},
        {"PMIX_NAMESPACE": "x"},
        {"SLURM_STEP_NUM_TASKS": "1"},
    ):
        assert runtime.sh("true", env=tasks | change).stderr == ""
    assert runtime.sh("true", "--unset-env=CHLAUNCH_*", env=tasks).stderr == ""  # as ch-launch writes it
