"""What is made of the reports of ranks: spans, summary, Chrome's events, a picture; and ch-launch that stays."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from chlaunch.launch import picture, trace
from chlaunch.launch.trace import Launch, Report

CHECKOUT = Path(__file__).resolve().parents[2]
MAIN = "import sys; from chlaunch.cli.launch import main; main()"
TOKEN = "a0" * 16
DAY = 1_700_000_000_000_000
LAUNCH = Launch("login", "srun", DAY, DAY + 80_000, DAY + 900_000)
SVG = "{http://www.w3.org/2000/svg}"


def parse_xml(text: str) -> ET.Element:
    """Return the root of our own document."""
    return ET.fromstring(text)  # noqa: S314  it is ours


def report(
    rank: int | None, host: str = "n1", size: int | None = 4, offset: int = DAY, **points: int
) -> Report:
    """Return a report; by default with the points of a rank that joined."""
    usual = {"begun": 100_000, "waited": 101_000, "joined": 101_500, "exec": 102_000}
    return Report(host, 7, rank, size, offset, points or usual)


def lengths(rank: trace.Rank) -> dict[str, int]:
    """Return how long each phase took."""
    return {span.phase: span.length for span in rank.spans}


def test_a_report_is_read() -> None:
    text = f"{TOKEN} n-1.site 42 3 128 -5 begun=10 exec=30"
    assert trace.parse(text.encode(), TOKEN) == Report("n-1.site", 42, 3, 128, -5, {"begun": 10, "exec": 30})
    text = f"{TOKEN} n1 42 - - 5 MPI_Init=30 other=1"
    assert trace.parse(text.encode(), TOKEN) == Report("n1", 42, None, None, 5, {"MPI_Init": 30})


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOKEN,
        f"{TOKEN} ",
        f"{'b0' * 16} n1 1 0 1 0 exec=1",
        f"{TOKEN[:-1]} n1 1 0 1 0 exec=1",
        f"{TOKEN} n1 1 0 1 0",
        f"{TOKEN} n1 1 0 1 0 exec=1\n",
        f"{TOKEN} n1 1 0 1 0 exec=-1",
        f"{TOKEN} n1 1 0 1 0 exec=1e9",
        f"{TOKEN} n1 1 0 1 0 exec={'9' * 18}",
        f"{TOKEN} n1 1 -1 1 0 exec=1",
        f"{TOKEN} n1 1 0 9999999999 0 exec=1",
        f"{TOKEN} <script> 1 0 1 0 exec=1",
        f"{TOKEN} {'n' * 65} 1 0 1 0 exec=1",
        f"{TOKEN} n\u0661 1 \u0661 1 0 exec=1",
        f"{TOKEN} n1 1 0 1 0{' exec=1' * 9}",
        f"{TOKEN} n1 1 0 1 0 exec=1{' ' * 600}",
    ],
)
def test_what_is_no_report_is_none(text: str) -> None:
    assert trace.parse(text.encode(), TOKEN) is None


def test_no_bytes_break_it() -> None:
    dice = random.Random(4)  # noqa: S311  not for secrets
    good = f"{TOKEN} n1 42 3 128 -5 begun=10 exec=30".encode()
    reports = []
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            bad[dice.randrange(len(TOKEN), len(bad))] = dice.randrange(256)
        found = trace.parse(bytes(bad), TOKEN)
        reports += [found] if found else []
    assert reports
    made = trace.ranks(LAUNCH, reports)
    json.dumps(trace.events(LAUNCH, made))
    parse_xml(picture.draw(LAUNCH, made))
    list(trace.lines(LAUNCH, trace.summarize(made)))


def test_phases_of_a_rank() -> None:
    maker = {"begun": 100_000, "waited": 100_100, "entered": 100_300, "mounted": 101_300, "joined": 101_400}
    first = Report("n1", 7, 0, 4, DAY, {**maker, "exec": 101_500})
    (rank,) = trace.ranks(LAUNCH, [first, report(0, MPI_Init=300_000)])
    assert lengths(rank) == {
        "planned": 80_000,
        "started": 20_000,
        "waited": 100,
        "entered": 200,
        "mounted": 1000,
        "joined": 100,
        "exec": 100,
        "MPI_Init": 198_500,
    }
    assert list(lengths(rank)) == list(trace.PHASES)
    assert rank.end == 300_000


def test_a_report_by_two_ways_counts_once() -> None:
    made = trace.ranks(LAUNCH, [report(1), report(0), report(1), report(1, "n2")])
    assert [(rank.number, rank.host) for rank in made] == [(0, "n1"), (1, "n1"), (1, "n2")]


def test_ranks_without_numbers_are_told_apart() -> None:
    assert len(trace.ranks(LAUNCH, [report(None), Report("n1", 8, None, None, DAY, {"begun": 90_000})])) == 2


def test_ranks_of_a_guest_share_one_way_in() -> None:
    guest = Launch("login", "guest", DAY, DAY + 80_000, DAY + 900_000)
    container = report(None, size=None, begun=81_000, entered=81_200, mounted=82_000, exec=82_100)
    made = trace.ranks(guest, [*(report(rank, MPI_Init=200_000 + rank) for rank in range(3)), container])
    assert [rank.number for rank in made] == [0, 1, 2]
    assert all(lengths(rank)["mounted"] == 800 for rank in made)
    assert lengths(made[2])["MPI_Init"] == 200_002 - 82_100
    assert trace.summarize(made).expected == 4
    (alone,) = trace.ranks(guest, [container])
    assert lengths(alone)["exec"] == 100


def test_clocks() -> None:
    behind = report(0, "n2", offset=DAY - 90_000)
    (rank,) = trace.ranks(LAUNCH, [behind])
    assert lengths(rank)["started"] == 0
    assert rank.behind == 70_000
    assert min(lengths(rank).values()) >= 0
    assert any("clocks behind" in line for line in trace.lines(LAUNCH, trace.summarize((rank,))))
    assert trace.ranks(LAUNCH, [report(0, offset=DAY * 2), report(1, offset=0)]) == ()


def test_percentiles() -> None:
    assert [trace.percentile(list(range(1, 101)), percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert [trace.percentile([3, 5], percent) for percent in (1, 50, 51, 99)] == [3, 3, 5, 5]


def test_summary() -> None:
    slow = report(2, "n2", begun=100_000, waited=100_010, joined=150_000, exec=150_001)
    made = trace.ranks(LAUNCH, [report(0), report(1), slow])
    found = trace.summarize(made)
    assert (found.ranks, found.expected, found.hosts) == (3, 4, 2)
    assert found.slowest == (("n2", 150_001), ("n1", 102_000))
    (joined,) = (row for row in found.phases if row.phase == "joined")
    assert (joined.count, joined.p50, joined.longest, joined.host, joined.rank) == (3, 500, 49_990, "n2", 2)
    first, *_, last = trace.lines(LAUNCH, found)
    assert first.startswith("3 of 4 ranks on 2 hosts reported")
    assert last.endswith("n2 (150.00), n1 (102.00)")
    data = json.loads(json.dumps(trace.as_data(found)))
    assert data["phases"]["joined"]["max"] == 49_990
    assert data["phases"]["joined"]["slowest"] == {"host": "n2", "rank": 2}


def test_nobody_reported() -> None:
    (line,) = trace.lines(LAUNCH, trace.summarize(()))
    assert line.startswith("no rank reported")
    assert [event["name"] for event in trace.events(LAUNCH, ())] == ["process_name", "planned", "srun"]
    parse_xml(picture.draw(LAUNCH, ()))


def test_events_are_chromes() -> None:
    made = trace.ranks(LAUNCH, [report(0), report(1, "n2"), report(2, "n2", size=None, MPI_Init=200_000)])
    events = trace.events(LAUNCH, made)
    for event in events:
        assert event["ph"] in ("X", "M")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
    names = {event["pid"]: event["args"] for event in events if event["name"] == "process_name"}
    assert names == {0: {"name": "login (ch-launch)"}, 1: {"name": "n1"}, 2: {"name": "n2"}}
    spans = [event for event in events if event["ph"] == "X"]
    assert {(event["pid"], event["tid"]) for event in spans} == {(0, 0), (1, 0), (2, 1), (2, 2)}
    (joined,) = (event for event in spans if (event["name"], event["tid"]) == ("joined", 1))
    assert (joined["ts"], joined["dur"]) == (101_000, 500)


@pytest.mark.parametrize(("count", "bars"), [(1, 1), (4, 4), (500, 500), (501, 251), (10_000, 500)])
def test_the_picture(count: int, bars: int) -> None:
    reports = [
        report(rank, f"n{rank % 7}", begun=90_000, joined=91_000 + rank, exec=120_000 + rank)
        for rank in range(count)
    ]
    root = parse_xml(picture.draw(LAUNCH, trace.ranks(LAUNCH, reports)))
    assert root.tag == f"{SVG}svg"
    groups = root.findall(f"{SVG}g")
    assert len(groups) == bars
    width = float(root.attrib["width"])
    for box in root.iter(f"{SVG}rect"):
        assert float(box.attrib["width"]) >= 0
        assert float(box.attrib.get("x", 0)) + float(box.attrib["width"]) <= width
    title = groups[-1].findtext(f"{SVG}title") or ""
    assert f"rank {count - 1} on n{(count - 1) % 7}: planned 80.00 ms, started 10.00 ms" in title
    assert set(picture.COLOURS) == set(trace.PHASES)


@pytest.mark.parametrize(("end", "step"), [(0, 1), (10, 1), (11, 2), (99, 10), (512_000, 100_000)])
def test_ticks(end: int, step: int) -> None:
    assert picture.tick(end) == step


# The command, with a script in ch-run's place as the guest launcher.


def popen(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start ch-launch in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(script: str, image: Path, environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Run ch-launch with a script in place of ch-run; return exit code, output and errors."""
    Path(environment["CHLAUNCH_CH_RUN"]).write_text(f"#!/bin/bash\n{script}\n")
    process = popen([*words, str(image), "--", "app"], environment)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a trace goes."""
    return tmp_path / "out/trace.json"


@pytest.fixture(autouse=True)
def directory(file: Path) -> Path:
    """Return the directory it goes to."""
    file.parent.mkdir()
    return file.parent


def test_it_ends_as_the_launcher_does(image: Path, environment: dict[str, str], file: Path) -> None:
    word = f"--ch-trace={file}"
    code, out, errors = launch("echo out; echo err >&2; exit 7", image, environment, word)
    assert (code, out, errors.splitlines()[0]) == (7, "out\n", "err")
    assert sorted(file.parent.iterdir()) == [file, file.with_suffix(".svg")]
    assert json.loads(file.read_text())["otherData"]["launcher"] == "guest"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT):
        assert launch(f"kill -{int(number)} $$", image, environment, word)[0] == -number


@pytest.mark.parametrize("word", [[], ["--ch-trace=FILE"]])
def test_the_launcher_gets_no_signal_ignored_or_blocked(
    image: Path, environment: dict[str, str], file: Path, word: list[str]
) -> None:
    words = [item.replace("FILE", str(file)) for item in word]
    code, out, _ = launch("exec /bin/grep -E '^Sig(Blk|Ign)' /proc/self/status", image, environment, *words)
    assert code == 0
    # posix_spawn(3) of glibc ignores its own two signals, 32 and 33, which programs can't use.
    assert [int(line.split()[1], 16) & 0x7FFF_FFFF for line in out.splitlines()] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_pass(image: Path, environment: dict[str, str], file: Path, number: signal.Signals) -> None:
    Path(environment["CHLAUNCH_CH_RUN"]).write_text(
        f"#!/bin/bash\ntrap 'echo got; exit 9' {int(number)}\necho ready\nwhile :; do read -t 0.02 <> <(:); done\n"
    )
    process = popen([f"--ch-trace={file}", str(image), "--", "app"], environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    assert process.communicate(timeout=30)[0] == "got\n"
    assert process.returncode == 9


def test_what_arrives_is_told(image: Path, environment: dict[str, str], file: Path) -> None:
    script = f"""
    exec {sys.executable} - "$@" <<'END'
import socket, sys, time
(word,) = (word for word in sys.argv if word.startswith("--trace="))
addresses, _, rest = word[8:].partition(":")
port, _, token = rest.partition("/")
now = time.monotonic_ns() // 1000
offset = time.time_ns() // 1000 - now
mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for who in (token, "0" * 32, token[:-1], ""):
    for rank in (0, 1):
        text = f"{{who}} n1 5 {{rank}} 3 {{offset}} begun={{now}} exec={{now + 9}}" if who else ""
        mouth.sendto(text.encode(), (addresses.split(",")[0], int(port)))
END
    """
    code, _, errors = launch(script, image, environment, f"--ch-trace={file}", "--ch-json")
    assert code == 0, errors
    plan, told = (json.loads(line) for line in errors.splitlines())
    (address,) = (word.removeprefix("--trace=") for word in plan["argv"] if word.startswith("--trace="))
    assert f"--env=CHLAUNCH_TRACE_TO={address}" in plan["argv"]
    assert (told["trace"]["ranks"], told["trace"]["expected"]) == (2, 3)
    assert told["trace"]["files"] == [str(file), str(file.with_suffix(".svg"))]
    spans = [event for event in json.loads(file.read_text())["traceEvents"] if event["name"] == "exec"]
    assert [(span["tid"], span["dur"]) for span in spans] == [(0, 9), (1, 9)]
    assert parse_xml(file.with_suffix(".svg").read_text()).tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/where/t.json", "can't write no/where/t.json: No such file or directory"),
        ("/dev/null/t", "can't write /dev/null/t: Not a directory"),
        ("/dev/null", "/dev/null is no regular file"),
        ("/dev", "/dev is no regular file"),
        ("/proc/t", "can't write /proc/t: No such file or directory"),
        ("t.svg", ".svg is the name of the picture"),
        ("..", ".. is no regular file"),
    ],
)
def test_a_file_that_can_not_be_written_is_refused_before(
    image: Path, environment: dict[str, str], name: str, said: str
) -> None:
    code, out, errors = launch("echo launched", image, environment, f"--ch-trace={name}")
    assert (code, out) == (64, "")
    assert said in errors.splitlines()[0]
    assert errors.splitlines()[1].startswith("ch-launch: hint: ")


def test_nothing_stays_where_nothing_was_launched(
    image: Path, environment: dict[str, str], file: Path
) -> None:
    word = f"--ch-trace={file}"
    Path(environment["CHLAUNCH_CH_RUN"]).write_bytes(b"\x00\x01not a program")
    process = popen([word, str(image), "--", "app"], environment)
    assert "Exec format error" in process.communicate(timeout=30)[1]
    assert process.returncode == 49
    assert launch("", Path("/no/where"), environment, word)[0] == 31
    assert launch("", image, environment, word, "--ch-dry-run")[0] == 0
    assert list(file.parent.iterdir()) == []


def test_a_link_is_replaced_and_not_followed(image: Path, environment: dict[str, str], file: Path) -> None:
    victim = file.with_name("victim")
    victim.write_text("mine")
    file.symlink_to(victim)
    assert launch("", image, environment, f"--ch-trace={file}")[0] == 0
    assert victim.read_text() == "mine"
    assert not file.is_symlink()


def test_the_environment_may_ask(image: Path, environment: dict[str, str], file: Path) -> None:
    assert launch("", image, {**environment, "CHLAUNCH_TRACE": str(file)})[0] == 0
    assert file.exists()


def test_the_probe_tells_and_never_fails() -> None:
    from chlaunch import probe  # noqa: PLC0415  the one test of it here

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        probe.tell_trace(f"127.0.0.1:{ear.getsockname()[1]}/{TOKEN}", 3, 4)
        found = trace.parse(ear.recv(1024), TOKEN)
    assert found is not None
    assert (found.rank, found.size, found.pid) == (3, 4, os.getpid())
    assert abs(found.points["MPI_Init"] + found.offset - time.time_ns() // 1000) < 5_000_000
    for target in (
        "",
        "x",
        "::/",
        "localhost:9/a",
        "127.0.0.1:99999/a",
        "127.0.0.1:-1/a",
        "127.0.0.1:/",
        "\udcff",
    ):
        probe.tell_trace(target, 0, 1)
