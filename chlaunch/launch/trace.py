"""Where the time of a launch went: what ranks report, as spans of time, events, and a summary. Pure.

A report is one datagram, ``TOKEN HOST PID RANK SIZE OFFSET NAME=TIME...``: of ch-run (runtime/trace.c) right
before it becomes the command, and of chlaunch.probe when MPI_Init is done. Times are microseconds of the
host's monotonic clock; with OFFSET they are of the day. Anybody may have sent it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# In the order in which a rank comes through them, and what each of them is.
PHASES = {
    "planned": "from Enter to the start of the launcher",
    "started": "until ch-run runs on the node; reckoned between clocks of two hosts",
    "waited": "for the lock under which the ranks of a node meet, and those who were there first",
    "entered": "namespaces made, by a rank that makes a container",
    "mounted": "root file system put together, and the server of an image file started, by the same",
    "joined": "in the container that another rank made; or known to those who will join",
    "exec": "environment, working directory and the rest, up to the command's first instruction",
    "MPI_Init": "start of the program, until MPI_Init is done; only chlaunch.probe says so",
}
BEGUN = "begun"  # ch-run's first instructions: the end of "started"

LONGEST = 512
RECORD = re.compile(
    r"(?P<host>[A-Za-z0-9_.-]{1,64}) (?P<pid>[0-9]{1,9}) (?P<rank>-|[0-9]{1,9}) (?P<size>-|[0-9]{1,9})"
    r" (?P<offset>-?[0-9]{1,17})(?P<points>(?: [A-Za-z_]{1,16}=[0-9]{1,17}){1,8})"
)
FARTHEST = 86_400_000_000  # microseconds: a time a day off is no clock's error but nonsense
SLOWEST_HOSTS = 3


@dataclass(frozen=True)
class Report:
    """What one process told. points: name and microseconds of the host's monotonic clock."""

    host: str
    pid: int
    rank: int | None
    size: int | None
    offset: int
    points: Mapping[str, int]


@dataclass(frozen=True)
class Launch:
    """What the submitting side knows. Times are microseconds of the day.

    launcher: srun, mpirun or guest; in a guest all ranks are in the one container that one ch-run entered.
    """

    host: str
    launcher: str
    begun: int
    launched: int
    ended: int


@dataclass(frozen=True)
class Span:
    """A phase of a rank: microseconds since the launch began."""

    phase: str
    start: int
    length: int


@dataclass(frozen=True)
class Rank:
    """One rank's way, phase by phase. number: None where no launcher gave it one; size: of its world.

    behind: microseconds by which its host's clock is behind ours at least, as it began before it was started.
    """

    host: str
    number: int | None
    size: int | None
    spans: tuple[Span, ...]
    behind: int

    @property
    def end(self) -> int:
        """Return when its last phase ended, in microseconds since the launch began."""
        return self.spans[-1].start + self.spans[-1].length


@dataclass(frozen=True)
class PhaseSummary:
    """One phase over all ranks that came through it: microseconds, and who was slowest."""

    phase: str
    count: int
    p50: int
    p99: int
    longest: int
    host: str
    rank: int | None


@dataclass(frozen=True)
class Summary:
    """A launch in short. expected: how many ranks there must have been, None if nobody knows.

    slowest: hosts whose last rank was ready last, and when. behind: hosts whose clocks are behind ours.
    """

    ranks: int
    expected: int | None
    hosts: int
    phases: tuple[PhaseSummary, ...]
    slowest: tuple[tuple[str, int], ...]
    behind: tuple[tuple[str, int], ...]


def parse(datagram: bytes, token: str) -> Report | None:
    """Return the report in a datagram; None if it is a stranger's, or none."""
    head = f"{token} ".encode()
    if not datagram.startswith(head) or len(datagram) > LONGEST:
        return None
    found = RECORD.fullmatch(datagram[len(head) :].decode("latin-1"))
    if found is None:
        return None
    points = dict(word.split("=") for word in found["points"].split())
    return Report(
        host=found["host"],
        pid=int(found["pid"]),
        rank=None if found["rank"] == "-" else int(found["rank"]),
        size=None if found["size"] == "-" else int(found["size"]),
        offset=int(found["offset"]),
        points={name: int(time) for name, time in points.items() if name in PHASES or name == BEGUN},
    )


def ranks(launch: Launch, reports: Iterable[Report]) -> tuple[Rank, ...]:
    """Return the ranks that reported, by number and host. A report that came twice counts once."""
    found: dict[tuple[str, int, int], Report] = {}
    for report in sorted(reports, key=lambda report: BEGUN not in report.points):  # ch-run's come first
        number, pid = (-1, report.pid) if report.rank is None else (report.rank, 0)
        key = (report.host, number, pid)
        found[key] = _later(found[key], report) if key in found else report
    together = list(found.values())
    containers = [report for report in together if BEGUN in report.points]
    if launch.launcher == "guest" and len(containers) == 1:
        inside = [report for report in together if "MPI_Init" in report.points]
        together = [_later(containers[0], report) for report in inside] or together
    made = [_rank(launch, report) for report in together]
    return tuple(
        sorted(
            (rank for rank in made if rank),
            key=lambda rank: (rank.number is None, rank.number or 0, rank.host),
        )
    )


def _later(first: Report, second: Report) -> Report:
    """Return what two processes of a rank told, by the clock of the first."""
    size = first.size if second.size is None else second.size
    return Report(second.host, first.pid, second.rank, size, first.offset, {**second.points, **first.points})


def _rank(launch: Launch, report: Report) -> Rank | None:
    """Return the way of a rank; None if its clock makes no sense."""
    day = {name: time + report.offset for name, time in report.points.items()}
    if not day or any(abs(time - launch.launched) > FARTHEST for time in day.values()):
        return None
    if BEGUN in day:
        day["started"] = day[BEGUN]
    spans = [Span("planned", 0, max(0, launch.launched - launch.begun))]
    for phase in PHASES:
        if phase in day and phase != "planned":
            start = spans[-1].start + spans[-1].length
            spans.append(Span(phase, start, max(0, day[phase] - launch.begun - start)))
    behind = max(0, launch.launched - min(day.values()))
    return Rank(report.host, report.rank, report.size, tuple(spans), behind)


def summarize(found: tuple[Rank, ...]) -> Summary:
    """Return the summary of a launch by its ranks."""
    sizes = [rank.size for rank in found if rank.size is not None]
    ends: dict[str, int] = {}
    behind: dict[str, int] = {}
    for rank in found:
        ends[rank.host] = max(rank.end, ends.get(rank.host, 0))
        if rank.behind:
            behind[rank.host] = max(rank.behind, behind.get(rank.host, 0))
    slowest = sorted(ends.items(), key=lambda item: -item[1])[:SLOWEST_HOSTS]
    return Summary(
        ranks=len(found),
        expected=max(*sizes, len(found)) if sizes else None,
        hosts=len(ends),
        phases=tuple(_phases(found)),
        slowest=tuple(slowest),
        behind=tuple(sorted(behind.items())),
    )


def _phases(found: tuple[Rank, ...]) -> Iterator[PhaseSummary]:
    """Give the summary of each phase that any rank came through."""
    ways: dict[str, list[tuple[int, Rank]]] = {phase: [] for phase in PHASES}
    for rank in found:
        for span in rank.spans:
            ways[span.phase].append((span.length, rank))
    for phase, through in ways.items():
        if through:
            through.sort(key=lambda pair: pair[0])
            lengths = [length for length, _ in through]
            longest, slowest = through[-1]
            yield PhaseSummary(
                phase,
                len(lengths),
                percentile(lengths, 50),
                percentile(lengths, 99),
                longest,
                slowest.host,
                slowest.number,
            )


def percentile(ordered: list[int], percent: int) -> int:
    """Return the smallest item that percent of the items don't exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def lines(launch: Launch, summary: Summary) -> Iterator[str]:
    """Give the summary as lines for people."""
    if not summary.ranks:
        yield (
            "no rank reported: none came to its command, no datagram (UDP) comes from the nodes to this host,"
            " or ch-run is another there"
        )
        return
    of = f" of {summary.expected}" if summary.expected is not None else ""
    hosts = f"{summary.hosts} host{'' if summary.hosts == 1 else 's'}"
    yield f"{summary.ranks}{of} ranks on {hosts} reported; times in ms"
    yield f"{'':10}{'ranks':>7}{'p50':>10}{'p99':>10}{'max':>10}  slowest"
    for row in summary.phases:
        who = "" if row.phase == "planned" else f"rank {_number(row.rank)} on {row.host}"
        times = "".join(f"{_ms(time):>10}" for time in (row.p50, row.p99, row.longest))
        yield f"{row.phase:10}{row.count:>7}{times}  {who}".rstrip()
    slowest = ", ".join(f"{host} ({_ms(end)})" for host, end in summary.slowest)
    yield f"last to be ready, since {launch.host} began: {slowest}"
    if summary.behind:
        late = ", ".join(f"{host} by {_ms(time)}" for host, time in summary.behind[:SLOWEST_HOSTS])
        yield f"clocks behind {launch.host}'s, so `started` is too short there: {late}"


def _ms(time: int) -> str:
    """Return microseconds as milliseconds."""
    return f"{time / 1000:.2f}"


def _number(rank: int | None) -> str:
    """Return how a rank is called."""
    return "?" if rank is None else str(rank)


def as_data(summary: Summary) -> dict[str, object]:
    """Return the summary as what JSON can say; times are microseconds."""
    return {
        "ranks": summary.ranks,
        "expected": summary.expected,
        "hosts": summary.hosts,
        "phases": {
            row.phase: {
                "ranks": row.count,
                "p50": row.p50,
                "p99": row.p99,
                "max": row.longest,
                "slowest": {"host": row.host, "rank": row.rank},
            }
            for row in summary.phases
        },
        "slowest_hosts": [{"host": host, "ready": end} for host, end in summary.slowest],
        "clocks_behind": [{"host": host, "least": time} for host, time in summary.behind],
    }


def events(launch: Launch, found: tuple[Rank, ...]) -> list[dict[str, object]]:
    """Return Chrome's trace events ("Trace Event Format"): a process is a host, a thread is a rank.

    Process 0 is the submitting side. Complete events (ph X) have ts and dur in microseconds.
    """
    hosts = {host: index for index, host in enumerate(sorted({rank.host for rank in found}), 1)}
    made = [_name("process_name", 0, 0, f"{launch.host} (ch-launch)")]
    made += [_name("process_name", index, 0, host) for host, index in hosts.items()]
    planned = max(0, launch.launched - launch.begun)  # somebody may have set the clock meanwhile
    made += [
        _event(Span("planned", 0, planned), 0, 0),
        _event(Span(launch.launcher, planned, max(0, launch.ended - launch.launched)), 0, 0),
    ]
    for index, rank in enumerate(found):
        pid, tid = hosts[rank.host], index if rank.number is None else rank.number
        made.append(_name("thread_name", pid, tid, f"rank {_number(rank.number)}"))
        made += [_event(span, pid, tid) for span in rank.spans if span.phase != "planned"]
    return made


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, object]:
    """Return a metadata event that names a process or a thread."""
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _event(span: Span, pid: int, tid: int) -> dict[str, object]:
    """Return the event of one span."""
    return {
        "ph": "X",
        "name": span.phase,
        "cat": "launch",
        "pid": pid,
        "tid": tid,
        "ts": span.start,
        "dur": span.length,
    }
