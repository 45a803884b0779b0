"""ch-doctor: what is wrong, and what to do."""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from chlaunch import native
from chlaunch.cli import examine, shared
from chlaunch.doctor import ailments
from chlaunch.doctor.ailments import Ailment
from chlaunch.doctor.explain import Answer, explain_log, explain_text
from chlaunch.doctor.scan import Finding
from chlaunch.errors import ChlaunchError, NativeError, UsageError

NAME = "ch-doctor"

HELP = """Say what an error message means, and what to do about it.

TEXT is a message, a code such as CH-0012, or plain words; - is a log on standard input.

\b
  ch-doctor explain 'Read -1, expected 6144, errno = 1'
  ch-doctor explain CH-0012
  ch-doctor explain --log slurm-4711.out
"""

# Exit codes of explain; 64 is usage, 31 a file that can't be read.
RECOGNISED, UNKNOWN = 0, 1

# Seconds between two lines about progress.
PROGRESS_EVERY = 0.5


def main() -> None:
    """Run the command and exit."""
    sys.exit(shared.run(NAME, doctor, sys.argv[1:]))


def doctor(words: list[str], environment: Mapping[str, str]) -> int:
    """Do what the first word says.

    Raises:
        ChlaunchError: any of the family.

    """
    if words[:1] == ["explain"]:
        return explain(words[1:], environment)
    return examine.examine(words, environment)


def explain(words: list[str], environment: Mapping[str, str]) -> int:
    """Explain a message, a code or a log; say so if nothing is known of it.

    Raises:
        UsageError: there is nothing to explain, or too much.
        ChlaunchError: the log can't be read.

    """
    if "--help" in words[: words.index("--") if "--" in words else None]:
        click.echo(_command().get_help(click.Context(_command(), info_name=f"{NAME} explain")))
        return 0
    given = _parse(words)
    catalogue = (*ailments.load(), *_native(environment))
    answer = _answer(given, catalogue)
    if given["json"]:
        click.echo(_json(answer))
    elif answer.findings:
        titles = {row.code: row.title for row in catalogue}
        click.echo("\n\n".join(_words(finding, titles) for finding in answer.findings))
    else:
        shared.say(
            NAME, f"nothing of this is known{f', in {answer.lines} lines' if answer.lines > 1 else ''}"
        )
        shared.say(
            NAME,
            "hint: the first error of a log says more than the last; chlaunch-errors(7) lists all there is",
        )
    return RECOGNISED if answer.findings else UNKNOWN


def _command() -> click.Command:
    """Return click's idea of ``ch-doctor explain``."""
    return click.Command(
        f"{NAME} explain",
        help=HELP,
        params=[
            click.Argument(["text"], nargs=-1, metavar="TEXT|CODE|-"),
            click.Option(["--log"], metavar="FILE", help="explain what is in FILE, which may be large"),
            click.Option(["--json"], is_flag=True, help="answer with one JSON object"),
        ],
        context_settings={"max_content_width": 100},
    )


def _parse(words: list[str]) -> dict[str, Any]:
    """Return what was given.

    Raises:
        UsageError: an unknown option; nothing to explain, or both text and a log.

    """
    try:
        given = _command().make_context(f"{NAME} explain", words).params
    except click.UsageError as error:
        raise UsageError(error.format_message(), f"{NAME} explain --help") from error
    given["text"] = " ".join(given["text"])
    if bool(given["text"].strip()) == (given["log"] is not None):
        said = "both a text and a log to explain" if given["text"] else "nothing to explain"
        raise UsageError(said, f"usage: {NAME} explain TEXT|CODE|- or --log FILE")
    return given


def _native(environment: Mapping[str, str]) -> tuple[Ailment, ...]:
    """Return ch-run's own errors; where it can't be asked, say so and do without."""
    try:
        return ailments.native(native.ch_run(environment))
    except NativeError as error:
        shared.say(NAME, f"warning: without ch-run's own errors: {error.message}")
        return ()


def _answer(given: Mapping[str, Any], catalogue: tuple[Ailment, ...]) -> Answer:
    """Return what is known of what was given.

    Raises:
        ChlaunchError: the log can't be read.

    """
    if given["log"] is None and given["text"] != "-":
        return explain_text(given["text"], catalogue)
    if given["log"] in (None, "-"):
        with _progress(sys.stdin.buffer) as tell:
            return explain_log(sys.stdin.buffer, catalogue, tell)
    try:
        with Path(given["log"]).open("rb") as log, _progress(log) as tell:
            return explain_log(log, catalogue, tell)
    except OSError as error:
        raise ChlaunchError(f"can't read {given['log']}: {error.strerror}") from error


@contextmanager
def _progress(stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Give what tells how far we are, on a terminal, on one line that is wiped away at the end."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    size = os.fstat(stream.fileno()).st_size
    told = time.monotonic()

    def tell(read: int) -> None:
        nonlocal told
        if time.monotonic() - told > PROGRESS_EVERY:
            told = time.monotonic()
            part = f" of {size >> 20}" if size > read else ""
            click.echo(f"\r{NAME}: {read >> 20}{part} MiB read\033[K", err=True, nl=False)

    try:
        yield tell
    finally:
        click.echo("\r\033[K", err=True, nl=False)


def _words(finding: Finding, titles: Mapping[str, str]) -> str:
    """Return a finding for people."""
    ailment = finding.ailment
    lines = [f"{ailment.title} [{ailment.code}]"]
    if finding.count:
        times = "once, on" if finding.count == 1 else f"{finding.count} times, first on"
        lines.append(f"  seen {times} line {finding.line}: {finding.excerpt}")
    told = [
        ("what it means", finding.fill(ailment.cause)),
        ("what to do", finding.fill(ailment.remedy)),
        ("releases", ailment.versions),
        ("source", ailment.source),
        ("see also", "; ".join(_kin(ailment, titles))),
    ]
    return "\n".join([*lines, *(line for head, text in told if text for line in _wrapped(head, text))])


def _kin(ailment: Ailment, titles: Mapping[str, str]) -> Iterator[str]:
    """Give the related codes with their titles."""
    for code in ailment.kin:
        yield f"{code} ({titles[code]})" if code in titles else code


def _wrapped(head: str, text: str) -> list[str]:
    """Return the lines of one part of a finding."""
    width = min(100, max(60, shutil.get_terminal_size().columns))
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"  {head}: ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _json(answer: Answer) -> str:
    """Return the answer as one JSON object."""
    import json  # noqa: PLC0415  only with --json

    findings = [
        {
            "code": finding.ailment.code,
            "title": finding.ailment.title,
            "field": finding.ailment.field,
            "count": finding.count,
            "line": finding.line,
            "excerpt": finding.excerpt,
            "names": dict(finding.names),
            "cause": finding.fill(finding.ailment.cause),
            "remedy": finding.fill(finding.ailment.remedy),
            "versions": finding.ailment.versions,
            "source": finding.ailment.source,
            "kin": finding.ailment.kin,
        }
        for finding in answer.findings
    ]
    return json.dumps({"lines": answer.lines, "findings": findings})
