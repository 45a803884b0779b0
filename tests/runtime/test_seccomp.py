"""Root emulation: privileged calls succeed and do nothing, in every ABI; all others are as they were."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
from syscalls import ARCHITECTURES, NATIVE, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runtime import Runtime

FAMILIES = re.compile(
    r"[lf]?chown(32|at)?|set(re|res|fs)?[ug]id(32)?|setgroups(32)?|capset|mknod(at)?|kexec_load"
)
ALLOW, FAKE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with errno 0
X32 = 0x40000000
FIFO, CHARACTER, BLOCK, REGULAR, SOCKET = 0o010000, 0o020000, 0o060000, 0o100000, 0o140000

# Arguments that would change something, by name without 32; the capabilities are none at all.
ARGUMENTS = {
    "chown": "/mnt/file,12,34",
    "lchown": "/mnt/file,12,34",
    "fchown": "0,12,34",
    "fchownat": "-100,/mnt/file,12,34,0",
    "mknod": f"/mnt/mknod,{CHARACTER | 0o600},0x103",
    "mknodat": f"-100,/mnt/mknodat,{BLOCK | 0o600},0x700",
    "setuid": "12",
    "setgid": "12",
    "setreuid": "12,12",
    "setregid": "12,12",
    "setresuid": "12,12,12",
    "setresgid": "12,12,12",
    "setgroups": "1,x0c000000",
    "setfsuid": "12",
    "setfsgid": "12",
    "capset": f"x2205082000000000,x{'00' * 24}",
    "kexec_load": "0,0,0,-1",
}
ABIS = {"native": NATIVE, **({"i386": "i386"} if NATIVE == "x86-64" else {})}


def privileged(architecture: str) -> dict[str, int]:
    """Return the numbers of the calls that are to be faked."""
    found = {name: number for name, number in numbers(architecture).items() if FAMILIES.fullmatch(name)}
    assert len(found) >= 14
    return found


@pytest.fixture
def files(runtime: Runtime) -> None:
    """Make a directory that the containers of `call` see at /mnt."""
    runtime.machine.run("rm -rf ~/files && mkdir ~/files && echo content >~/files/file", check=True)


def call(runtime: Runtime, *words: str, options: Iterable[str] = (), before: str = "") -> list[str]:
    """Return the lines that call prints for `words` in a container; standard input is /mnt/file."""
    inside = f"exec /tmp/tools/call {' '.join(words)} </mnt/file"
    result = runtime.shell(f"{before} $CH_RUN {' '.join(options)} -b ~/files:/mnt $IMAGE -- sh -c '{inside}'")
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout.splitlines()


def listing(runtime: Runtime) -> str:
    return runtime.machine.run("stat -c '%n %F %u:%g %a %Z' ~/files/*", check=True).stdout


def words_of(abi: str) -> dict[str, str]:
    """Return the word for `call` for each privileged call of the ABI."""
    return {
        name: f"{abi},{number},{ARGUMENTS[name.removesuffix('32')]}"
        for name, number in privileged(ABIS[abi]).items()
    }


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("abi", ABIS)
class TestCalls:
    """Made for real, in each ABI of this machine."""

    def test_privileged_calls_succeed(self, runtime: Runtime, abi: str) -> None:
        """Even where the kernel would let a command that is root in its container do some of it."""
        before = listing(runtime)
        words = words_of(abi)
        for options in (["--seccomp"], ["--seccomp", "-u0", "-g0"], ["--seccomp", "-j"]):
            lines = call(runtime, "status", *words.values(), "status", options=options)
            middle = len(lines) - len(words)
            assert dict(zip(words, lines[middle // 2 :], strict=False)) == dict.fromkeys(words, "0")
            assert lines[: middle // 2] == lines[-middle // 2 :]
            assert listing(runtime) == before

    def test_without_the_option_they_fail(self, runtime: Runtime, abi: str) -> None:
        words = words_of(abi)
        words["capset"] = words["capset"].replace("00" * 24, "ff" * 24)  # to drop all is anybody's right
        results = dict(zip(words, map(int, call(runtime, *words.values())), strict=True))
        previous = {name for name in words if name.startswith("setfs")}  # they return the previous ID
        uid = int(runtime.machine.run("id -u").stdout)
        assert {name: results[name] for name in previous} == dict.fromkeys(previous, uid)
        assert [name for name in words.keys() - previous if results[name] >= 0] == []

    def test_to_drop_capabilities_is_faked(self, runtime: Runtime, abi: str) -> None:
        words = (words_of(abi)["capset"], "status")
        root = ["-u0", "-g0"]
        assert "CapEff:\t0000000000000000" in call(runtime, *words, options=root)
        assert "CapEff:\t0000000000000000" not in call(runtime, *words, options=["--seccomp", *root])

    def test_other_files_are_made(self, runtime: Runtime, abi: str) -> None:
        table = numbers(ABIS[abi])
        kinds = {FIFO: "fifo", REGULAR: "regular empty file", 0: "regular empty file", SOCKET: "socket"}
        words = []
        for kind in kinds:
            words.append(f"{abi},{table['mknodat']},-100,/mnt/at{kind},{kind | 0o600},0")
            if "mknod" in table:
                words.append(f"{abi},{table['mknod']},/mnt/new{kind},{kind | 0o600},0")
        assert call(runtime, *words, options=["--seccomp"]) == ["0"] * len(words)
        made = listing(runtime)
        for kind, text in kinds.items():
            assert f"/at{kind} {text} " in made
            assert f"/new{kind} {text} " in made or "mknod" not in table

    def test_other_calls_fail_as_ever(self, runtime: Runtime, abi: str) -> None:
        table = numbers(ABIS[abi])
        words = (
            f"{abi},{table['openat']},-100,/mnt/missing,0,0",
            f"{abi},{table['truncate']},/mnt/missing,0",  # 92 on i386, which is chown on x86-64
            f"{abi},{table['close']},-1",
        )
        assert call(runtime, *words, options=["--seccomp"]) == ["-2", "-2", "-9"]

    def test_an_outer_refusal_is_overruled(self, runtime: Runtime, abi: str) -> None:
        """As of a container runtime that forbids all of this to its own containers."""
        words = words_of(abi)
        refused = ",".join(map(str, privileged(NATIVE).values()))
        lines = call(runtime, *words.values(), options=["--seccomp"], before=f"$TOOLS/deny 1 {refused}")
        assert dict(zip(words, lines, strict=True)) == dict.fromkeys(words, "0")


@pytest.mark.usefixtures("files")
@pytest.mark.skipif(NATIVE != "x86-64", reason="x32 is an ABI of x86-64")
def test_x32_is_no_other_abi(runtime: Runtime) -> None:
    """Whether this kernel has it (EINVAL: no such user here) or not (ENOSYS)."""
    word = f"native,{numbers('x86-64')['chown'] | X32},{ARGUMENTS['chown']}"
    assert call(runtime, word, options=["--seccomp"])[0] in ("-22", "-38")


class Instruction(NamedTuple):
    """One instruction of classic BPF, its code as the names that strace prints."""

    code: frozenset[str]
    value: int
    then_skip: int
    else_skip: int


def instructions(text: str) -> Iterator[Instruction]:
    """Read the filter that strace prints."""
    answers = {"SECCOMP_RET_ALLOW": ALLOW, "SECCOMP_RET_ERRNO": FAKE}
    for code, words in re.findall(r"BPF_(?:STMT|JUMP)\(([A-Z_|]+), ([^)]+)\)", text):
        value, *skips = words.split(", ")
        number = answers[value] if value in answers else int(value, 0)
        then_skip, else_skip = [int(skip, 0) for skip in skips] or (0, 0)
        yield Instruction(frozenset(code.split("|")), number, then_skip, else_skip)


def answer(program: list[Instruction], token: int, number: int, arguments: Iterable[int] = ()) -> int:
    """Say what the filter answers to a system call on a little-endian machine."""
    words = {0: number, 4: token}
    for offset, argument in zip(itertools.count(16, 8), arguments, strict=False):
        words |= {offset: argument & 0xFFFFFFFF, offset + 4: argument >> 32}
    accumulator = 0
    remaining = iter(program)
    for code, value, then_skip, else_skip in remaining:
        if code == {"BPF_LD", "BPF_W", "BPF_ABS"}:
            accumulator = words[value]
        elif code == {"BPF_ALU", "BPF_AND", "BPF_K"}:
            accumulator &= value
        elif code == {"BPF_JMP", "BPF_JEQ", "BPF_K"}:
            skip = then_skip if accumulator == value else else_skip
            next(itertools.islice(remaining, skip, skip), None)
        else:
            assert code == {"BPF_RET", "BPF_K"}
            return value
    raise AssertionError("the filter has no end")


@pytest.fixture(scope="module")
def program(runtime: Runtime) -> list[Instruction]:
    """Return the filter as it was given to the kernel."""
    result = runtime.shell("strace -v -e trace=seccomp $CH_RUN --seccomp $IMAGE -- true")
    found = re.search(
        r"^seccomp\(SECCOMP_SET_MODE_FILTER, 0, {len=(\d+), .*= 0$", result.stderr, re.MULTILINE
    )
    assert found, result.stderr
    program = list(instructions(found[0]))
    assert len(program) == int(found[1])
    return program


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest, may_lack: Callable[[], AbstractContextManager[None]]) -> str:
    """Return the name of an architecture whose headers are here."""
    name: str = request.param
    with may_lack():
        numbers(name)
    return name


class TestFilter:
    """The filter's answers, also for architectures that this machine is not."""

    def test_exactly_the_headers_numbers(self, program: list[Instruction], architecture: str) -> None:
        """With a device's mode as every argument, each call of the families is faked and no other."""
        token = ARCHITECTURES[architecture].token
        tried = {*range(1024), *(number | X32 for number in range(1024)), 2**32 - 1}
        devices = (CHARACTER | 0o600,) * 6
        faked = {number for number in tried if answer(program, token, number, devices) == FAKE}
        assert faked == set(privileged(architecture).values())

    def test_mknod_by_its_mode(self, program: list[Instruction], architecture: str) -> None:
        """Only the argument that is the mode counts, and of it the type of the file."""
        row = ARCHITECTURES[architecture]
        table = privileged(architecture)
        for name, place in {"mknod": 1, "mknodat": 2}.items():
            for kind in (0, FIFO, CHARACTER, 0o040000, BLOCK, REGULAR, 0o120000, SOCKET):
                for other, more in itertools.product((0, CHARACTER, BLOCK), (0, 0o7777, 0xFFFF << 32)):
                    arguments = [other] * 6
                    arguments[place] = kind | more
                    expected = FAKE if kind in (CHARACTER, BLOCK) else ALLOW
                    if name in table:
                        assert answer(program, row.token, table[name], arguments) == expected

    def test_unknown_architectures_are_left_alone(self, program: list[Instruction]) -> None:
        tokens = {0, 0x00000016, 0x80000015, 0xC0000102, 0x40000000}  # s390, ppc64, loongarch64
        for token, number in itertools.product(tokens, range(1024)):
            assert answer(program, token, number, (CHARACTER,) * 6) == ALLOW


class TestFailures:
    """Where there can be no filter."""

    def failure(self, runtime: Runtime, error: int) -> tuple[int, str]:
        """Return how ch-run ends where seccomp(2) returns `error` without acting, and its words."""
        number = numbers(NATIVE)["seccomp"]
        result = runtime.shell(f"$TOOLS/deny {error} {number} $CH_RUN --seccomp $IMAGE -- echo started")
        assert result.stdout == ""
        message, hint = result.stderr.splitlines()
        found = re.match(r"ch-run\[\d+\]: hint: .*leave out --seccomp \[(CH-\d+)\]", hint)
        assert found
        return result.returncode, f"{message} [{found[1]}]"

    def test_refused(self, runtime: Runtime) -> None:
        code, message = self.failure(runtime, 1)
        assert code == 31
        assert (
            "error: can't fake root: seccomp filter refused: seccomp(2): Operation not permitted" in message
        )
        assert "[CH-0093]" in message

    @pytest.mark.parametrize("error", [22, 38])
    def test_not_there(self, runtime: Runtime, error: int) -> None:
        code, message = self.failure(runtime, error)
        assert code == 87
        assert "error: can't fake root: no seccomp filters here: seccomp(2): " in message
        assert "[CH-0094]" in message

    def test_without_effect(self, runtime: Runtime) -> None:
        """The call claims to have succeeded: only the test of it finds out."""
        code, message = self.failure(runtime, 0)
        assert code == 31
        assert "in place, but a call is not faked: kexec_load: " in message
        assert "[CH-0095]" in message


def test_feature(runtime: Runtime) -> None:
    assert "seccomp" in json.loads(runtime("--version", "--json").stdout)["features"]


ROOT = ("-u0", "-g0")
SCRIPT = """
umask 022; touch file; chown 12:34 file && mknod c c 1 3 && mknod p p && su nobody -s /bin/sh -c "id -u" && ls -ln
"""


def test_commands(runtime: Runtime) -> None:
    """What an installation script does, as root in an image that is written to."""
    image = runtime.copy_image("installed", "mkdir new")
    words = ("-w", *ROOT, "--cd=/new", image, "--", "sh", "-c", SCRIPT)
    result = runtime("--seccomp", *words)
    assert (result.returncode, result.stderr) == (0, "")
    user, _, *files = result.stdout.splitlines()
    assert user == "0"
    assert [re.sub(r" +", " ", line)[:18] for line in files] == ["-rw-r--r-- 1 0 0 0", "prw-r--r-- 1 0 0 0"]
    assert "chown: file: Invalid argument" in runtime(*words).stderr


def archive(directory: Path, name: str, *members: tarfile.TarInfo) -> None:
    with tarfile.open(directory / name, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: int) -> tarfile.TarInfo:
    """Return a member of an archive that belongs to a user with an ID that the container lacks."""
    info = tarfile.TarInfo(name)
    info.type, info.uid, info.gid = kind, 12, 34
    info.mode = 0o2755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in more.items():
        setattr(info, field, value)
    return info


def test_unpacking(runtime: Runtime) -> None:
    """An archive with other people's files and a device, as root unpacks it."""
    directory = runtime.machine.outside("/tmp")
    archive(
        directory,
        "files.tar",
        member("d", tarfile.DIRTYPE),
        member("d/file", size=7),
        member("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("d/fifo", tarfile.FIFOTYPE),
    )
    script = "rm -rf /tmp/tree && mkdir /tmp/tree && tar -x -C /tmp/tree -f /tmp/files.tar"
    assert "can't create node d/null: Operation not permitted" in runtime.sh(script, *ROOT).stderr
    seen = runtime.output(f"{script} && cd /tmp/tree/d && ls && cat file", "--seccomp", *ROOT)
    assert seen == "fifo\nfile\nxxxxxxx"


CONTROL = "Package: other\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"


def test_package_manager(runtime: Runtime, image_ompi4: Path) -> None:
    """Debian's own installs a package with other people's files."""
    directory = runtime.machine.outside("/tmp")
    (directory / "debian-binary").write_text("2.0\n")
    control = tarfile.TarInfo("./control")
    control.size = len(CONTROL)
    with tarfile.open(directory / "control.tar", "w") as tar:
        tar.addfile(control, io.BytesIO(CONTROL.encode()))
    archive(
        directory, "data.tar", member("./opt", tarfile.DIRTYPE), member("./opt/file", size=7, mode=0o4755)
    )
    parts = ("debian-binary", "control.tar", "data.tar")
    subprocess.run(["ar", "qc", "other.deb", *parts], cwd=directory, check=True)
    script = (
        "export PATH=$PATH:/usr/sbin:/sbin && rm -rf /tmp/tree && mkdir -p /tmp/tree/var/lib/dpkg/updates && "
        "cd /tmp/tree/var/lib/dpkg && mkdir info && touch status available && "
        "dpkg --root=/tmp/tree --install /tmp/other.deb && dpkg --root=/tmp/tree --status other"
    )
    words = (*ROOT, str(image_ompi4), "--", "sh", "-c", script)
    plain = runtime(*words)
    assert plain.returncode != 0
    assert "error setting ownership of" in plain.stderr
    result = runtime("--seccomp", *words)
    assert result.returncode == 0, result.stderr
    assert "Status: install ok installed" in result.stdout
    assert runtime.machine.run("cat /tmp/tree/opt/file").stdout == "xxxxxxx"
