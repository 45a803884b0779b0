"""Bad input: one clear error that names the thing, the reason and the remedy, and a documented exit code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtime import Runtime

FORM = re.compile(r"ch-run\[\d+\]: error: (.+) \([a-z_-]+\.c:\d+(?: \d+ E[A-Z0-9]+)?\)")


def assert_fails(runtime: Runtime, words: list[str], code: int, message: str, remedy: bool = True) -> None:  # noqa: FBT001, FBT002
    result = runtime(*words)
    lines = result.stderr.splitlines()
    assert result.returncode == code, result
    found = FORM.fullmatch(lines[0])
    assert found, lines
    assert found[1] == message
    assert len(lines) == 1 + remedy
    assert not remedy or re.match(r"ch-run\[\d+\]: hint: ", lines[1])
    assert result.stdout == ""


def test_image(runtime: Runtime) -> None:
    run = ["--", "true"]
    assert_fails(runtime, ["/no/image", *run], 31, "can't find image: /no/image: No such file or directory")
    assert_fails(runtime, ["/etc/passwd", *run], 31, "image is not a directory: /etc/passwd")
    assert_fails(runtime, ["/home/bob/x", *run], 31, "can't open image: /home/bob/x: Permission denied")


def test_image_without_mount_points(runtime: Runtime) -> None:
    missing = "not the root of an image, a directory to mount on is missing"
    for name in ("dev", "proc", "sys"):
        image = runtime.copy_image("broken", f"rmdir {name}")
        assert_fails(runtime, [image, "--", "true"], 31, f"{missing}: /{name}: No such file or directory")
        image = runtime.copy_image("broken", f"rmdir {name} && touch {name}")
        kind = "can't bind: a directory and a file can't cover each other"
        assert_fails(runtime, [image, "--", "true"], 31, f"{kind}: /{name}")


def test_bind(runtime: Runtime) -> None:
    run = [runtime.image, "--", "true"]
    absent = "can't bind: source not found: /no/source: No such file or directory"
    assert_fails(runtime, ["-b", "/no/source", *run], 31, absent)
    kind = "can't bind: a directory and a file can't cover each other"
    assert_fails(runtime, ["-b", "/etc/passwd:/mnt", *run], 31, f"{kind}: /mnt")
    assert_fails(runtime, ["-b", "/mnt:/etc/passwd", *run], 31, f"{kind}: /etc/passwd")
    target = "can't bind: can't reach or make destination"
    assert_fails(runtime, ["-b", "/mnt:/", *run], 31, f"{target}: /: must be absolute, and not /")
    assert_fails(runtime, ["-b", "/mnt:rel", *run], 31, f"{target}: rel: must be absolute, and not /")
    below = f"{target}: /no/../x: '..' below a directory that does not exist"
    assert_fails(runtime, ["-b", "/mnt:/no/../x", *run], 31, below)
    assert_fails(runtime, ["-b", "/mnt:/etc/passwd/x", *run], 31, f"{target}: /etc/passwd/x: Not a directory")


def test_directory_and_environment(runtime: Runtime) -> None:
    run = [runtime.image, "--", "true"]
    where = "can't cd to initial working directory: /no: No such file or directory"
    assert_fails(runtime, ["--cd=/no", *run], 31, where)
    file = "can't read environment file: /no: No such file or directory"
    assert_fails(runtime, ["--set-env=/no", *run], 31, file)
    assert_fails(
        runtime,
        ["--set-env=/dev/zero", *run],
        31,
        "can't read environment file: /dev/zero: not a file of at most 1 MiB",
    )
    runtime.machine.run("echo nonsense >~/bad", check=True)
    line = "can't parse variable, no '=': /home/alice/bad: nonsense"
    assert_fails(runtime, ["--set-env=/home/alice/bad", *run], 31, line)


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
    for command, message in {
        "nosuch": f"{missing}: nosuch: No such file or directory",
        "/no/such": f"{missing}: /no/such: No such file or directory",
        "/directory": "can't exec: is a directory: /directory: Permission denied",
        "/plain": "can't exec: not executable: /plain: mode 0644: Permission denied",
        "/script": "can't exec: its interpreter is not in the image: /script needs /no/interpreter: No such file or directory",
        "/arm": "can't exec: built for another architecture: /arm: for arm64, this is x86-64: Exec format error",
    }.items():
        assert_fails(runtime, [image, "--", command], 49, message)
    result = runtime(image, "--", "/dynamic")
    assert "its interpreter is not in the image: /dynamic needs /lib" in result.stderr
    assert_fails(
        runtime,
        [image, "--", "/zeros"],
        49,
        "can't exec: neither a program nor a script: /zeros: Exec format error",
        remedy=False,
    )
    assert runtime(image, "--", "/text", "here").stdout == "shell ran here\n"


def test_noexec(runtime: Runtime) -> None:
    runtime.machine.root(
        f"mkdir -p /tmp/noexec && mount -t tmpfs -o noexec,mode=1777 tmpfs /tmp/noexec && cp {runtime.image}/usr/bin/busybox /tmp/noexec"
    )
    try:
        message = "can't exec: on a file system mounted noexec: /tmp/noexec/busybox: Permission denied"
        assert_fails(runtime, [runtime.image, "--", "/tmp/noexec/busybox"], 49, message)
    finally:
        runtime.machine.root("umount /tmp/noexec")


def test_join_pid(runtime: Runtime) -> None:
    run = [runtime.image, "--", "true"]
    start = "join: can't join the namespaces of process"
    stranger = f"{start}: 1: /proc/1/ns/user not found: Permission denied"
    assert_fails(runtime, ["--join-pid=1", *run], 31, stranger)
    dead = f"{start}: 4194303: /proc/4194303/ns/user not found: No such file or directory"
    assert_fails(runtime, ["--join-pid=4194303", *run], 31, dead)


def test_no_user_namespaces(runtime: Runtime) -> None:
    """What a host that forbids them answers: unshare(2), number 272 on x86-64, with EPERM."""
    result = runtime.shell("$TOOLS/deny 1 272 $CH_RUN $IMAGE -- true")
    assert result.returncode == 31
    assert "can't make a user namespace" in result.stderr
    assert "kernel.apparmor_restrict_unprivileged_userns" in result.stderr
    assert "user.max_user_namespaces" in runtime.shell("$TOOLS/deny 28 272 $CH_RUN $IMAGE -- true").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no image; write"),
        (["IMAGE"], "no command; write"),
        (["IMAGE", "--"], "no command; write"),
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
