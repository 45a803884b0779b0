"""How work with images is shown: bars on a terminal, lines elsewhere, JSON where a program reads."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chlaunch.cli import shared
from chlaunch.image.events import Events
from chlaunch.image.manifest import Progress

# Seconds: what ends sooner is not worth a line that it began.
LINE_AFTER = 2.0


class Lines:
    """Plain lines on standard error, which go into logs."""

    def __init__(self, quiet: int = 0) -> None:
        """quiet: 1 for warnings only, more for nothing."""
        self.quiet = quiet

    def say(self, line: str) -> None:
        """Print it, unless told to be quiet."""
        if not self.quiet:
            shared.say("", line)

    def warn(self, line: str) -> None:
        """Print it, unless told to be very quiet."""
        if self.quiet < 2:  # noqa: PLR2004  -qq
            shared.say("", f"warning: {line}")

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Progress]:
        """Say what was done, and how fast, once it is; where that takes long, also that it began."""
        begun = time.monotonic()
        done = 0
        told = False

        def progress(count: int) -> None:
            nonlocal done, told
            done += count
            if not told and time.monotonic() - begun > LINE_AFTER:
                told = True
                self.say(f"{what}: {size(done)} of {size(total)} …" if total else f"{what} …")

        yield progress
        seconds = time.monotonic() - begun
        self.say(f"{what}: {size(done)} in {seconds:.1f} s" if done else f"{what}: {seconds:.1f} s")


class Bars(Lines):
    """A bar for everything that goes on, on a terminal."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        from rich import progress  # noqa: PLC0415  50 ms, only on a terminal
        from rich.console import Console  # noqa: PLC0415  likewise

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._lock = threading.Lock()
        self._open = 0

    def say(self, line: str) -> None:
        """Print it above the bars."""
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print it above the bars."""
        self.say(f"warning: {line}")

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Progress]:
        """Show a bar that grows."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._bars.start()
        bar = self._bars.add_task(what, total=total or None)
        try:
            yield lambda count: self._bars.advance(bar, count)
        finally:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    self._bars.stop()


class Records:
    """An object a line on standard error."""

    def say(self, line: str) -> None:
        """Write a line that is as it should be."""
        _record("info", message=line)

    def warn(self, line: str) -> None:
        """Write a warning."""
        _record("warning", message=line)

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Progress]:
        """Write that something begins, and that it is done."""
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count

        _record("begin", what=what, total=total)
        begun = time.monotonic()
        yield progress
        _record("end", what=what, total=total, bytes=done, seconds=round(time.monotonic() - begun, 3))


def events(quiet: int = 0, *, as_json: bool = False) -> Events:
    """Return who is to be told, as it was asked for and as standard error is."""
    if as_json:
        return Records()
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        return Lines(quiet)
    return Bars()


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004  the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _record(kind: str, **said: Any) -> None:  # noqa: ANN401  what JSON has
    """Write one object."""
    shared.say("", json.dumps({"event": kind, **said}))
