"""ch-doctor explain: real messages are recognised, innocent text is not, and a log may have any size."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import resource
import select
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import re2

from chlaunch.doctor import ailments, scan
from chlaunch.doctor.explain import explain_log, explain_text
from chlaunch.doctor.needles import LEAST, expression, literal, needle
from chlaunch.errors import ConfigError, NativeError
from chlaunch.launch.options import OPTIONS

if TYPE_CHECKING:
    from chlaunch.doctor.ailments import Ailment

CORPUS = Path(__file__).parent / "corpus"
CHECKOUT = Path(__file__).resolve().parents[2]
MESSAGES = tomllib.loads((CORPUS / "messages.toml").read_text())["message"]
CH_DOCTOR = Path(sysconfig.get_path("scripts")) / "ch-doctor"

# Options in causes and remedies that are not ours, and whose they are.
FOREIGN = {
    "mpi": "srun", "export": "srun", "mem": "srun", "mem-per-cpu": "srun", "x11": "srun", "help": "srun",
    "container": "srun", "container-image": "pyxis", "mca": "mpirun", "oversubscribe": "mpirun",
    "map-by": "mpirun", "with-slurm": "configure of Open MPI", "security-opt": "docker", "shm-size": "docker",
    "platform": "docker", "rootfs": "podman", "rootless": "umoci", "image": "umoci", "raw": "skopeo",
    "no-same-owner": "tar", "exclude": "tar", "auth": "ch-image of Charliecloud", "arch": "ch-image of Charliecloud",
    "mount": "RUN of Docker", "chmod": "COPY of Docker", "output": "nvidia-ctk", "add-subuids": "usermod",
    "add-subgids": "usermod", "no-home": "ch-run of Charliecloud",
}  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(ch_run: Path) -> tuple[Ailment, ...]:
    return (*ailments.load(), *ailments.native(str(ch_run)))


def codes(text: str, catalogue: tuple[Ailment, ...]) -> list[str]:
    """Return the codes of what is found, in the order they are told."""
    return [finding.ailment.code for finding in explain_text(text, catalogue).findings]


@pytest.mark.parametrize("engine", [re, re2], ids=["re", "re2"])
@pytest.mark.parametrize(
    "message", MESSAGES, ids=[f"{row['code']}-{row['text'][:30].strip()}" for row in MESSAGES]
)
def test_real_messages(
    message: dict[str, Any], engine: Any, catalogue: tuple[Ailment, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "engine", lambda: engine)
    assert codes(message["text"], catalogue)[:1] == [message["code"]], message["source"]


def test_every_ailment_is_hit_by_a_real_message(catalogue: tuple[Ailment, ...]) -> None:
    hit = {row["code"] for row in MESSAGES}
    assert {row.code for row in catalogue if not row.is_native} <= hit
    assert hit <= {row.code for row in catalogue}


def test_ch_run_s_own_errors_are_recognised_by_code_and_by_words(catalogue: tuple[Ailment, ...]) -> None:
    for row in catalogue:
        if row.is_native:
            assert codes(row.code.lower(), catalogue) == [row.code]
            error = f"ch-run[7]: error: {row.title}: x (y.c:1 2 ENOENT)"
            hint = f"ch-run[7]: hint: {row.remedy} [{row.code}]"
            assert row.code in codes(f"{error}\n{hint}\n", catalogue)
            said = codes(error, catalogue)
            assert next(other.title for other in catalogue if other.code == said[0]) == row.title


def test_what_ch_run_says_today(ch_run: Path, catalogue: tuple[Ailment, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [ch_run, tmp_path / "none", "--", "true"], capture_output=True, text=True, check=False
    )
    (finding,) = explain_text(done.stderr, catalogue).findings
    assert (finding.ailment.code, finding.count) == ("CH-0010", 1), "an error and its hint are one"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "CH-1804"),
        (["-n4", "IMAGE", "--"], "CH-1804"),
        (["--ch-imag=x", "IMAGE", "--", "true"], "CH-1809"),
        (["--ch-site=/nonexistent", "IMAGE", "--", "true"], "CH-1809"),
    ],
)
def test_what_ch_launch_says_today(words: list[str], code: str, catalogue: tuple[Ailment, ...]) -> None:
    done = subprocess.run(
        [CH_DOCTOR.with_name("ch-launch"), *words], capture_output=True, text=True, check=False
    )
    assert codes(done.stderr, catalogue) == [code]


@pytest.mark.parametrize(
    "path",
    [
        *sorted((CORPUS / "innocent").iterdir()),
        *(CHECKOUT / name for name in ("LICENSE", "Makefile", "CONTRIBUTING.md")),
    ],
    ids=lambda path: path.name,
)
def test_innocent_logs(path: Path, catalogue: tuple[Ailment, ...]) -> None:
    with path.open("rb") as log:
        answer = explain_log(log, catalogue)
    assert [(row.ailment.code, row.line, row.excerpt) for row in answer.findings] == []
    assert answer.lines > 5


def test_the_rows(catalogue: tuple[Ailment, ...]) -> None:
    known = {row.code for row in catalogue}
    assert len(known) == len(catalogue), "one code, one error"
    for row in catalogue:
        assert row.title, row.code
        assert row.cause[-1] in ".)", row.code
        for text in (row.remedy, row.versions, row.source):
            assert text.strip(), row.code
        assert set(row.kin) <= known - {row.code}, row.code
        names = set(re.findall(r"\{([a-z]+)\}", row.cause + row.remedy))
        assert all(names <= set(re.compile(pattern).groupindex) for pattern in row.patterns if names), (
            row.code
        )


def test_patterns_are_cheap(catalogue: tuple[Ailment, ...]) -> None:
    for row in catalogue:
        for pattern in row.patterns:
            assert len(literal(pattern)) >= LEAST, pattern
            assert not re.search(r"\)[*+{]|[*+}][*+{]", pattern), f"nested quantifiers: {pattern}"
            assert not re.search(r"(?<!\\)\.[*+]", pattern), f"a gap without bound: {pattern}"
            assert "(?i" not in pattern


def test_remedies_name_options_that_exist(ch_run: Path, catalogue: tuple[Ailment, ...]) -> None:
    usage = subprocess.run([ch_run, "--help"], capture_output=True, text=True, check=True).stdout
    ours = set(re.findall(r"--([a-z0-9-]+)", usage))
    launch = {name for option in OPTIONS for name in (f"ch-{option.name}", f"ch-no-{option.name}")}
    used = set()
    for row in catalogue:
        for name in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])", row.cause + row.remedy):
            assert name in ours | launch | FOREIGN.keys(), f"{row.code}: --{name}"
            used.add(name)
        assert "ch-image" not in row.remedy or "Charliecloud's ch-image" in row.remedy or row.is_native, (
            row.code
        )
    assert FOREIGN.keys() - used == set()


def test_names_are_filled_in_and_are_no_way_to_play_tricks(catalogue: tuple[Ailment, ...]) -> None:
    line = "ch-run[1]: error: can't execve(2): /bin/\x1b[31mx{cause}: Permission denied (ch_core.c:1 13)"
    (finding,) = explain_text(line, catalogue).findings
    assert finding.fill(finding.ailment.cause).startswith("/bin/ [31mx{cause} is not executable for you")
    assert "\x1b" not in finding.excerpt
    (asked,) = explain_text("CH-1205", catalogue).findings
    assert asked.fill(asked.ailment.cause).startswith("COMMAND is not executable for you")


def test_ranks_that_say_the_same_are_one_finding(catalogue: tuple[Ailment, ...]) -> None:
    lines = ["all is well", *(f"[n{rank}:1] Read -1, expected {rank}, errno = 1" for rank in range(10_000))]
    answer = explain_log(io.BytesIO("\n".join([*lines, "No space left on device"]).encode()), catalogue)
    first, second = answer.findings
    assert (first.ailment.code, first.count, first.line) == ("CH-1100", 10_000, 2)
    assert first.excerpt == "[n0:1] Read -1, expected 0, errno = 1"
    assert (second.ailment.code, second.count, second.line) == ("CH-1230", 1, 10_002)
    assert answer.lines == 10_002


def test_symptoms_come_last_and_one_lone_sign_is_none(catalogue: tuple[Ailment, ...]) -> None:
    log = b"x: No space left on device\nHello, world, I am 0 of 1, (Open MPI)\nmpirun has detected an attempt to run as root.\n"
    found = [row.ailment.code for row in explain_log(io.BytesIO(log), catalogue).findings]
    assert found == ["CH-1026", "CH-1230"]
    found = [row.ailment.code for row in explain_log(io.BytesIO(log * 2), catalogue).findings]
    assert found == ["CH-1000", "CH-1026", "CH-1230"]


@pytest.mark.parametrize("engine", [re, re2], ids=["re", "re2"])
def test_lines_over_the_ends_of_blocks(engine: Any, catalogue: tuple[Ailment, ...]) -> None:
    message = b"Read -1, expected 6144, errno = 1\n"
    compiled = scan.scanner(catalogue, engine)
    for before in range(scan.BLOCK - len(message) - 1, scan.BLOCK + 1):
        log = b"x" * (before % 61) + b"\n" * (before - before % 61) + message + b"y\n"
        ((finding,), lines) = scan.scan(io.BytesIO(log), compiled)
        assert (finding.count, finding.line, lines) == (1, log.count(b"\n") - 1, log.count(b"\n"))


def test_long_lines_and_garbage(catalogue: tuple[Ailment, ...]) -> None:
    message = b"[n1:1] Read -1, expected 6144, errno = 1"
    garbage = bytes(range(256)) * 1000
    log = (
        garbage
        + b"\n"
        + message
        + b"\xff\xfe\n"
        + b"z" * (3 << 20)
        + b"\n"
        + message
        + b"\n"
        + b"q" * (2 << 20)
    )
    answer = explain_log(io.BytesIO(log), catalogue)
    (finding,) = answer.findings
    assert finding.count == 2
    assert answer.lines == log.count(b"\n") + 1


def test_a_hostile_log_costs_no_more(catalogue: tuple[Ailment, ...]) -> None:
    half = b"process_vm_readv(pid=1 " + b"open(file_name=/proc/1/fd/" + b"WARNING: the image speaks "
    log = (half * 4000 + b"\n") * 4
    start = time.monotonic()
    explain_log(io.BytesIO(log), catalogue)
    assert time.monotonic() - start < 20


def test_200_mib_in_bounded_memory_and_time(tmp_path: Path) -> None:
    line = b"[%07d] step %d residual 1.234567e-05 energy -4.2 warning: not converged, error estimate 0.1\n"
    block = b"".join(line % (number, number) for number in range(12_000))
    log = tmp_path / "log"
    with log.open("wb") as file:
        while file.tell() < 200 << 20:
            file.write(block)
        file.write(b"[n1:1] Read -1, expected 6144, errno = 1\n")

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))  # Python, click and re2 map 150 MiB

    start = time.monotonic()
    done = subprocess.run(
        [CH_DOCTOR, "explain", "--json", "--log", log],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=bound,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["code"] for row in json.loads(done.stdout)["findings"]] == ["CH-1100"]
    assert time.monotonic() - start < 30, "200 MiB: 1 s with re2 on a quiet machine"


def run(*words: str, given: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run the real ch-doctor."""
    return subprocess.run(
        [CH_DOCTOR, *words], input=given, capture_output=True, check=False, env={**os.environ, **more}
    )


def test_the_command(tmp_path: Path) -> None:
    done = run("explain", "Read -1, expected 6144, errno = 1", COLUMNS="1000")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert text.startswith("ranks of a node may not read each other's memory [CH-1100]\n")
    for word in (
        "user namespace",
        "--join",
        "OMPI_MCA_btl_vader_single_copy_mechanism=none",
        "OMPI_MCA_smsc=^cma",
    ):
        assert word in re.sub(r"\s+", " ", text)
    log = tmp_path / "log"
    log.write_text("fine\nch-run[1]: hint: x [CH-0012]\n")
    for words, given in ((("--log", str(log)), b""), (("-",), log.read_bytes())):
        done = run("explain", "--json", *words, given=given)
        answer = json.loads(done.stdout)
        assert (done.returncode, answer["lines"]) == (0, 2)
        assert [(row["code"], row["line"], row["count"]) for row in answer["findings"]] == [("CH-0012", 2, 1)]
    done = run("explain", "--help")
    assert (done.returncode, b"ch-doctor explain --log slurm-4711.out" in done.stdout) == (0, True)


def test_progress_on_a_terminal() -> None:
    ours, its = pty.openpty()
    with subprocess.Popen(
        [CH_DOCTOR, "explain", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=its
    ) as doctor:
        os.close(its)
        assert doctor.stdin is not None
        while not select.select([ours], [], [], 0)[0]:
            doctor.stdin.write(b"all is well\n" * 100_000)
        assert re.fullmatch(rb"\rch-doctor: [0-9]+ MiB read\x1b\[K", os.read(ours, 100))
        doctor.kill()
    os.close(ours)


def test_nothing_recognised_and_usage(tmp_path: Path) -> None:
    done = run("explain", "all is well")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"nothing of this is known" in done.stderr
    assert b"chlaunch-errors(7)" in done.stderr
    done = run("explain", "--json", "all is well")
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (1, [])
    for words in (
        ["explain"],
        ["explain", ""],
        ["explain", "x", "--log", "y"],
        ["explain", "--what"],
    ):
        done = run(*words)
        assert (done.returncode, b"Traceback" in done.stderr) == (64, False), words
        assert b"ch-doctor: hint: " in done.stderr
    done = run("explain", "--log", str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()) == (
        31,
        [b"ch-doctor: error: can't read %s: Is a directory" % bytes(tmp_path)],
    )


def test_without_ch_run_the_rest_is_explained() -> None:
    done = run("explain", "Read -1, expected 1, errno = 1", CHLAUNCH_CH_RUN="/nonexistent")
    assert done.returncode == 0
    assert b"warning: without ch-run's own errors: CHLAUNCH_CH_RUN is /nonexistent" in done.stderr


def test_without_re2_the_answer_is_the_same() -> None:
    program = "import sys; sys.modules['re2'] = None; sys.argv[0] = 'ch-doctor'; from chlaunch.cli.doctor import main; main()"
    words = ["explain", "--json", "mpirun has detected an attempt to run as root."]
    plain = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, check=True)
    assert plain.stdout == run(*words).stdout


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        ("Read -1, expected [0-9]+, errno ?= ?1", "Read -1, expected "),
        (r"open\(file_name=/proc/[0-9]+/fd/", "open(file_name=/proc/"),
        ("(?:one|two) three(?:a(b)c)? four", " three"),
        (r"ends\.?", "ends"),
        (r"a\[b\]{2}cd", "a[b"),
        (r"\S+ word \b", " word "),
    ],
)
def test_literals(pattern: str, plain: str) -> None:
    assert literal(pattern) == plain


def test_needles_are_found_as_they_are() -> None:
    texts = ["abcdefgh", "abcxefgh", "abc", "Q.(x"]
    for engine in (re, re2):
        found = engine.compile(expression(texts).encode())
        assert [match.group() for match in found.finditer(b"zabcdefghQ.(x abcxefgh")] == [
            b"abc",
            b"Q.(x",
            b"abc",
        ]
    assert needle("this is Quite long") == "Quite long"
    assert needle("short") == "short"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("field = 'x'\n[[ailment]]\ncode = 'CH-0999'\n", ":3: code is CH-NNNN, from 1000 on: CH-0999"),
        ("field = 'x'\n[[ailment]]\ncode = 'CH-1999'\n", ":2: CH-1999 needs patterns or words"),
        ("field = 'x'\n[[ailment]]\ncod = 'CH-1999'\n", ":3: unknown key cod"),
    ],
)
def test_a_row_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    rest = "".join(f"{key} = 'x'\n" for key in ("title", "cause", "remedy", "versions", "source"))
    file = tmp_path / "x.toml"
    file.write_text(text + rest)
    with pytest.raises(ConfigError) as caught:
        ailments.parse(file)
    assert message in caught.value.message


def test_a_ch_run_that_does_not_tell(tmp_path: Path) -> None:
    other = tmp_path / "ch-run"
    other.write_text("#!/bin/sh\necho '{}'\n")
    other.chmod(0o755)
    for path in (other, tmp_path / "none"):
        with pytest.raises(NativeError, match="does not tell its errors"):
            ailments.native(str(path))
