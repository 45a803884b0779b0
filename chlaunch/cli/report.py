"""What --ch-trace makes of what its ear heard: a summary, Chrome's trace events, and a picture."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from chlaunch.cli.trace import Trace
from chlaunch.launch import picture
from chlaunch.launch import trace as pure


@dataclass(frozen=True)
class Found:
    """What came of a trace."""

    launch: pure.Launch
    ranks: tuple[pure.Rank, ...]
    summary: pure.Summary


def gather(trace: Trace, launcher: str, launched: int, ended: int) -> Found:
    """Return what the ranks reported. Times are microseconds of the day."""
    launch = pure.Launch(os.uname().nodename, launcher, trace.begun, launched, ended)
    reports = [report for datagram in trace.received if (report := pure.parse(datagram, trace.token))]
    ranks = pure.ranks(launch, reports)
    return Found(launch, ranks, pure.summarize(ranks))


def lines(found: Found) -> Iterator[str]:
    """Give the summary as lines for people."""
    yield from (f"trace: {line}" for line in pure.lines(found.launch, found.summary))


def as_json(trace: Trace, found: Found) -> str:
    """Return the summary as one line of JSON."""
    files = [str(file) for file in trace.files]
    return json.dumps({"trace": {**pure.as_data(found.summary), "files": files}})


def write(trace: Trace, found: Found) -> list[str]:
    """Write the files; return a sentence for each that can't be written."""
    failed = []
    document = {
        "traceEvents": pure.events(found.launch, found.ranks),
        "displayTimeUnit": "ms",
        "otherData": {"launcher": found.launch.launcher, "summary": pure.as_data(found.summary)},
    }
    texts = (json.dumps(document, separators=(",", ":")), picture.draw(found.launch, found.ranks))
    for file, draft, text in zip(trace.files, trace.drafts, texts, strict=True):
        try:
            draft.write_text(text)
            draft.rename(file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            failed.append(f"can't write {file}: {error.strerror}")
    return failed
