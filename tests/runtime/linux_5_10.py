"""What users get on Linux 5.10, which mounts no overlays for them, as alice on ext4.

`make test-linux-5.10` runs this there; the name keeps it out of `make test`. Denied system calls are a likeness of
that kernel (test_fallback.py): this is the kernel itself, with its file systems.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made import layout

if TYPE_CHECKING:
    import subprocess

    from runtime import Runtime

ENOSYS = 38
MOUNT_SETATTR = 442
SAID_WHY = "users can't mount overlays here (permission denied)"
HERE = "/var/tmp/alice"  # on ext4, as /home is; /tmp is a tmpfs

DOCKERFILE = """\
FROM layered AS first
ENV GREETING=hello
RUN echo one >/one && rm /data/second && rm -r /data/third && mkdir /data/third && touch /data/third/x
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/memory touch /memory/x && echo $GREETING >>/cache/all
RUN --mount=type=cache,target=/cache cat /cache/all >/cached
COPY --chmod=640 Dockerfile /data/first
RUN --mount=type=bind,from=layered,source=/data,target=/seen --mount=target=/context,rw \\
    cat /seen/second >/two && echo changed >/context/Dockerfile
RUN chown 12:34 /one && chmod 4755 /one && mknod /device c 1 3 && id -u >/id
FROM first
COPY --from=first /two /three
WORKDIR /data/third
"""


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    """See that this is the kernel that is meant."""
    assert os.uname().release.startswith("5.10."), "not Linux 5.10: make test-linux-5.10"


@pytest.fixture(scope="module")
def place(runtime: Runtime) -> str:
    """Return a directory of alice's with an image of three layers, which remove files, and what to build of it."""
    runtime.machine.root(f"install -d -o alice {HERE}")
    outside = runtime.machine.outside(HERE)
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w") as tar:
        tar.add(runtime.image, ".")
    more = {
        "data": None,
        "data/first": b"1\n",
        "data/second": b"2\n",
        "data/third": None,
        "data/third/y": b"",
    }
    less = {"data/.wh.first": b"", "data/third/.wh..wh..opq": b"", "data/third/z": b""}
    layout(outside / "layout", [base.getvalue(), more, less])
    (outside / "context").mkdir()
    (outside / "context/Dockerfile").write_text(DOCKERFILE)
    shutil.chown(outside / "context/Dockerfile", "root")
    runtime.machine.root(f"chown -R alice: {HERE}")
    return HERE


def shell(runtime: Runtime, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of alice's, with storage in `place`."""
    path = f"{Path(runtime.ch_run).parent}:/usr/bin:/bin"
    return runtime.shell(
        f"set -e; cd {HERE}; {script}", env={"PATH": path, "CH_IMAGE_STORAGE": f"{HERE}/storage"}, timeout=300
    )


def said(runtime: Runtime, script: str) -> str:
    """Return what a script prints, which must succeed and warn of nothing but overlays."""
    result = shell(runtime, script)
    warnings = [line for line in result.stderr.splitlines() if not line.endswith(SAID_WHY)]
    assert (result.returncode, warnings) == (0, []), result
    return result.stdout


@pytest.fixture(scope="module")
def layered(runtime: Runtime, place: str) -> str:
    """Return the name of the image of three layers in storage."""
    assert SAID_WHY in shell(runtime, f"ch-image import {place}/layout layered 2>&1").stdout
    return "layered"


@pytest.fixture(scope="module")
def built(runtime: Runtime, layered: str) -> str:
    """Return the name of an image that was built of that."""
    result = shell(runtime, f"ch-image build -t built context 2>&1 # of {layered}")
    assert (result.returncode, result.stdout.count(SAID_WHY)) == (0, 1), result.stdout
    return "built"


def test_the_kernel_is_old(runtime: Runtime) -> None:
    """Else all that follows would show nothing."""
    runtime.machine.run("mkdir -p ~/a ~/b ~/m", check=True)
    mount = "mount -t overlay -o lowerdir=a:b overlay m"
    result = runtime.shell(f"cd; unshare --user --map-root-user --mount {mount}")
    assert result.returncode
    assert "permission denied" in result.stderr
    assert runtime.shell(f"$TOOLS/call native,{MOUNT_SETATTR},-1,0,0,0,0").stdout == f"-{ENOSYS}\n"


@pytest.mark.parametrize("scope", ["-W", "--write-fake-scope=rank"])
def test_write_fake_is_refused(runtime: Runtime, squashfs: str, scope: str) -> None:
    for image in (runtime.image, squashfs):
        result = runtime(scope, image, "--", "true")
        assert (result.returncode, "[CH-0038]" in result.stderr) == (31, True)
        assert "need Linux 5.11 or newer" in result.stderr
    runtime.await_no_servers()


def test_layers(runtime: Runtime, layered: str) -> None:
    """By name, joined or not; what layers remove is not there."""
    script = "cd /data && ls -d * third/* && cat second /ch/environment && touch /x 2>&1"
    seen = "second\nthird\nthird/z\n2\nPATH=/bin\n"
    for words in ("", "-j", "--private-tmp", "-b context:/gpfs/deep"):
        result = shell(runtime, f"ch-run {words} {layered} -- sh -c '{script}'")
        assert result.stdout.startswith(seen), result
        assert "Read-only file system" in result.stdout


def test_layers_of_others_do_not_stack(runtime: Runtime, layered: str) -> None:
    """What was stored where overlays can be mounted, and is used here: the remedy is in the message."""
    storage = f"{HERE}/storage"
    result = shell(
        runtime,
        f"cd {storage}/images && cp -r {layered} elsewhere && (head -n1 {layered}/layers; cat {layered}/layers) "
        f">elsewhere/layers; ! ch-run elsewhere -- true; rm -r elsewhere",
    )
    assert (result.returncode, "[CH-0038]" in result.stderr) == (0, True), result
    assert "have ch-image pull, import or build it here again" in result.stderr


def test_build(runtime: Runtime, built: str) -> None:
    script = (
        "cat /one /two /three /cached /id; head -n1 /data/first; pwd; echo $GREETING; ls -A /data /data/third;"
        " stat -c %a /one /data/first; ls -d /seen /context /cache /memory /device"
    )
    result = shell(runtime, f"ch-run --set-env {built} -- sh -c '{script}' || true")
    assert result.stdout == (
        "one\n2\n2\nhello\n0\nFROM layered AS first\n/\nhello\n/data:\nfirst\nthird\n\n/data/third:\nx\n755\n640\n"
    )
    assert result.stderr.count("No such file") == 5


def test_build_leaves_the_context_alone(runtime: Runtime, built: str) -> None:
    assert built
    assert runtime.machine.outside(f"{HERE}/context/Dockerfile").read_text() == DOCKERFILE


def test_build_again(runtime: Runtime, built: str) -> None:
    """From the cache, all of it."""
    again = shell(runtime, f"ch-image build -t {built} context 2>&1").stdout.splitlines()
    signs = "".join(line[3:4] for line in again if line[:3].strip().isdecimal())
    assert signs == "* *********", again  # ENV is nothing to do


def test_failed_build(runtime: Runtime, layered: str) -> None:
    """Nothing is left of it."""
    result = shell(
        runtime,
        f"printf 'FROM {layered}\\nRUN touch /x; exit 3\\n' | ch-image build -t failed -f - context; echo $?",
    )
    assert "RUN command exited with 3" in result.stderr
    assert said(runtime, "ls storage/tmp; ch-image list | grep failed || true") == ""


def test_closed_files(runtime: Runtime, layered: str) -> None:
    """What a step closed is copied for the next one, and found by it."""
    text = f"FROM {layered}\\nRUN mkdir -p /d/e && echo 1 >/d/e/f && chmod 0 /d/e/f /d/e /d /\\nRUN cat /d/e/f >/said\\n"
    said(runtime, f"printf '{text}' | ch-image -q build -t closed -f - context")
    assert said(runtime, "ch-run closed -- cat /said") == "1\n"


@pytest.mark.parametrize("kind", ["squash", "oci", "tar", "dir"])
def test_convert(runtime: Runtime, built: str, kind: str) -> None:
    out = f"{HERE}/out.{kind}"
    said(runtime, f"ch-convert -q -o {kind} {built} {out}")
    if kind in ("oci", "tar"):
        said(runtime, f"ch-image -q import {out} {kind}")
        out = kind
    script = "cd /data && ls -d * third/* && cat /three && stat -c %a /one"
    assert said(runtime, f"ch-run {out} -- sh -c '{script}'") == "first\nthird\nthird/x\n2\n755\n"
    runtime.await_no_servers()


def test_gc(runtime: Runtime, built: str) -> None:
    """What no image needs goes; what is left runs, and is alice's."""
    said(runtime, "ch-image -q import layout gone && ch-image -q delete gone && ch-image -q gc")
    assert said(runtime, f"ch-run {built} -- cat /three") == "2\n"
    assert (
        said(runtime, "find . ! -user alice; find storage/tmp -mindepth 1; ch-image list | grep gone || true")
        == ""
    )


def test_doctor(runtime: Runtime, place: str) -> None:
    found = json.loads(shell(runtime, f"cd {place}; ch-doctor --json {runtime.image} || true").stdout)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["user namespaces"]["verdict"] == rows["mount API"]["verdict"] == "ok"
    assert "as well" in rows["mount API"]["found"]
    assert rows["overlay"]["verdict"] == "warning"
    assert "Operation not permitted: no --write-fake" in rows["overlay"]["found"]
    assert "Linux 5.11 or newer" in rows["overlay"]["remedy"]
