"""Rights that ch-run refuses to have, and more of everything than anybody wants: it works, or is one clear error."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from runtime import Runtime

SECONDS = 20
MIB = 1 << 20
HEADER = struct.Struct("<QQIIII")  # rendezvous.h: format, user namespace, uid, gid, members, unused
MEMBER = struct.Struct("<QQQQiI")  # mount namespace, container, start, instance, PID, unused
MEMBERS_MOST = 65536


def assert_fails(result: subprocess.CompletedProcess[str], code: int, error: str, row: str) -> None:
    lines = result.stderr.splitlines()
    assert (result.returncode, result.stdout, len(lines)) == (code, "", 2), result
    assert error in lines[0]
    assert lines[1].endswith(f"[{row}]")


@pytest.mark.release
@pytest.mark.parametrize("right", ["chmod u+s", "chmod g+s", "setcap cap_sys_admin+ep"])
def test_rights_are_refused(runtime: Runtime, right: str) -> None:
    """Even before the command line is read: with --version too."""
    copy = "/tmp/privileged"
    mark = ["--join-tag=privileged", "--set-env=/no", runtime.image, "--", "touch", "/tmp/ran"]
    try:
        runtime.machine.root(f"cp {runtime.ch_run} {copy} && chown root:root {copy} && chmod 755 {copy}")
        assert runtime.machine.run([copy, "--version"]).returncode == 0
        runtime.machine.root(f"{right} {copy}")
        for words in (mark, ["--version"], ["--no-such-option"]):
            result = runtime.machine.run([copy, *words])
            refusal = f"error: refusing to run set-user-ID or set-group-ID: {copy} (ch-run.c:"
            assert_fails(result, 31, refusal, "CH-0003")
        assert runtime.machine.root("ls /tmp /dev/shm/chlaunch-* 2>&1", check=False).stdout.count("ran") == 0
        assert "privileged." not in runtime.machine.root("ls /dev/shm/chlaunch-* 2>&1", check=False).stdout
    finally:
        runtime.machine.root(f"rm -f {copy}")


def test_ten_thousand_binds(runtime: Runtime) -> None:
    runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
    for target in ("/opt/d{}", "/mnt"):
        words = [f"-bdata:{target.format(number)}" for number in range(10_000)]
        script = f"cat {target.format(9999)}/file; ls /opt | wc -l"
        result = runtime(*words, runtime.image, "--", "sh", "-c", script, timeout=SECONDS)
        count = 10_000 if "{}" in target else 0
        assert (result.stderr, result.stdout) == ("", f"content\n{count}\n")


def test_ten_thousand_variables(runtime: Runtime) -> None:
    words = [f"--set-env=V{number}={number}" for number in range(10_000)]
    script = "env | grep -c ^V; echo $V9999"
    assert runtime.output(script, *words, timeout=SECONDS) == "10000\n9999"
    assert runtime.output("env | grep -c ^V || :", *words, "--unset-env=V*", timeout=SECONDS) == "0"


def test_large_environment_files(runtime: Runtime) -> None:
    files = runtime.machine.outside("/home/alice")
    lines = [f"V{number}={'x' * 1000}" for number in range(1000)]
    text = "\n".join(lines).ljust(MIB - len("\nLAST=1"), "\n") + "\nLAST=1"
    (files / "large").write_text(text)
    assert len(text) == MIB
    script = "env | grep -c ^V; echo $LAST"
    assert runtime.output(script, "--set-env=large", timeout=SECONDS) == "1000\n1"
    (files / "large").write_text(f"\n{text}")
    message = "can't read environment file: large: not a file of at most 1 MiB"
    assert_fails(runtime.sh("true", "--set-env=large"), 31, message, "CH-0051")
    (files / "large").write_text("V=".ljust(MIB, "x"))
    message = "can't exec: arguments and environment are too long: /usr/bin/sh: Argument list too long"
    assert_fails(runtime.sh("true", "--set-env=large"), 49, message, "CH-0089")


def test_too_many_layers(runtime: Runtime) -> None:
    runtime.machine.run(
        "mkdir -p ~/deep/images/many; yes 1 | head -501 >~/deep/images/many/layers", check=True
    )
    message = "can't use image in storage: many: can't use layer 501: 1 (store.c:"
    assert_fails(runtime("--storage=deep", "many", "--", "true"), 31, message, "CH-0018")


@pytest.mark.parametrize("count", [2**32 - 1, MEMBERS_MOST + 1, MEMBERS_MOST, 2**31])
@pytest.mark.parametrize("there", [0, 1000, MEMBERS_MOST])
def test_rendezvous_of_many(runtime: Runtime, count: int, there: int) -> None:
    """Most of them not there, and all of them dead: the next ranks meet all the same."""
    runtime.output("true", "--join-tag=many")
    directory = runtime.machine.run("ls -d /dev/shm/chlaunch-$(id -u)/many*").stdout.strip()
    file = runtime.machine.outside(directory)
    uid = file.stat().st_uid
    start = file.read_bytes()
    own = HEADER.unpack_from(start)
    assert own[2:5] == (uid, uid, 1)
    member = MEMBER.unpack_from(start, HEADER.size)
    with file.open("r+b") as stream:
        stream.write(HEADER.pack(*own[:4], count, 0))
        stream.write(b"".join(MEMBER.pack(*member[:4], 0x400000 + pid, 0) for pid in range(there)))
    script = "'readlink /proc/self/ns/mnt; sleep 0.5'"
    result = runtime.shell(
        f"for i in 1 2; do $CH_RUN --join-tag=many $IMAGE -- sh -c {script} & done; wait", timeout=SECONDS
    )
    assert result.stderr == ""
    assert re.fullmatch(r"(mnt:\[\d+\]\n)\1", result.stdout)
