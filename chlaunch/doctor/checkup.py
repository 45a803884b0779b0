"""All checks, in the order in which they are told, and their report."""

import json
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata

from chlaunch import native
from chlaunch.doctor import files, host, images, offers, siblings
from chlaunch.doctor.rows import VERDICTS, Patient, Row, worst
from chlaunch.doctor.running import Check, run
from chlaunch.errors import ChlaunchError
from chlaunch.launch import options, site
from chlaunch.rootfs import storage_directory
from chlaunch.slurm import ask

# Seconds: an image on a cold file system, and its PMIx and MPI libraries, may take long to read.
IMAGE_DEADLINE = 60.0
# Likewise two servers of it, and ranks that wait for each other.
CONTAINER_DEADLINE = 30.0

HOST = (
    Check("host", "user namespaces", host.namespaces),
    Check("host", "ch-run", siblings.container, CONTAINER_DEADLINE),
    Check("host", "memory, joined", siblings.joined, CONTAINER_DEADLINE),
    Check("host", "memory, not joined", siblings.apart, CONTAINER_DEADLINE),
    Check("host", "Yama", host.yama),
    Check("host", "mount API", host.mounts),
    Check("host", "overlay", host.overlay),
    Check("host", "/dev/fuse", files.fuse),
    Check("host", "squashfuse", files.squashfuse),
    Check("host", "noexec mounts", files.noexec),
    Check("host", "/dev/shm", files.shared_memory),  # noqa: S108  a name
    Check("host", "/tmp", files.tmp),  # noqa: S108  likewise
    Check("host", "storage", files.storage),
)
LAUNCHERS = (
    Check("launchers", "Slurm", offers.cluster, 3 * CONTAINER_DEADLINE),
    Check("launchers", "mpirun", offers.mpirun),
    Check("launchers", "configuration", offers.configuration),
)
IMAGE = (
    Check("image", "image", images.contents_of, IMAGE_DEADLINE),
    Check("image", "launch", images.lines, IMAGE_DEADLINE),
)

WIDTH = 100


def examine(
    environment: Mapping[str, str], image: str = "", command: tuple[str, ...] = ()
) -> Iterator[tuple[Check, list[Row]]]:
    """Give each check with its rows, as soon as these are known. image: the word for one, empty for none."""
    with tempfile.TemporaryDirectory(prefix="ch-doctor-", ignore_cleanup_errors=True) as directory:
        patient = Patient(environment, directory, _storage(environment), image, command)
        yield from run((*HOST, *LAUNCHERS, *(IMAGE if image else ())), patient)


def _storage(environment: Mapping[str, str]) -> str:
    """Return the storage a launch would use; the default where no configuration is read."""
    try:
        twins = options.from_environment(environment)
        found = site.load(environment, options.merge(twins).text("site") or None)
        named = options.merge(*found.layers, twins).text("storage")
    except ChlaunchError:
        named = ""
    return storage_directory(named, environment)


def as_lines(told: Iterable[tuple[Check, list[Row]]], verdicts: list[str]) -> Iterator[str]:
    """Give the report's lines, for people. verdicts: those of the rows told are added to it."""
    area = ""
    for check, rows in told:
        if check.area != area:
            yield from (["", check.area] if area else [check.area])
            area = check.area
        for row in rows:
            verdicts.append(row.verdict)
            yield from row_lines(row, f"  {row.verdict:<8} ")
    yield ""
    yield summary(verdicts)


def row_lines(row: Row, head: str) -> Iterator[str]:
    """Give a row's lines. head: what the first begins with; the others are below its end."""
    width = len(head) + 2
    yield from textwrap.wrap(
        _plain(row.found),
        WIDTH,
        initial_indent=f"{head}{row.name}: ",
        subsequent_indent=" " * width,
        break_on_hyphens=False,
    ) or [f"{head}{row.name}: "]
    if row.remedy:
        yield from textwrap.wrap(
            _plain(row.remedy),
            WIDTH,
            initial_indent=" " * (width - 2) + "-> ",
            subsequent_indent=" " * (width + 1),
            break_on_hyphens=False,
            break_long_words=False,
        )


def versions(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of our parts: chlaunch and ch-run; one that can't be asked has none."""
    found = {}
    with suppress(metadata.PackageNotFoundError):  # a source tree that nobody installed
        found["chlaunch"] = metadata.version("chlaunch")
    with suppress(ChlaunchError):
        found["ch-run"] = ask([native.ch_run(environment), "--version"], CONTAINER_DEADLINE, "")[0].strip()
    return found


def summary(verdicts: list[str]) -> str:
    """Return the last line."""
    counted = [(verdicts.count(verdict), verdict) for verdict in VERDICTS[:0:-1]]
    said = [f"{number} {verdict}{'s' if number > 1 else ''}" for number, verdict in counted if number]
    return ", ".join(said) or "all is well"


def as_json(
    told: Iterable[tuple[Check, list[Row]]], verdicts: list[str], environment: Mapping[str, str]
) -> str:
    """Return the report as one JSON object, with versions. verdicts: as above."""
    rows = [{"area": check.area, **vars(row)} for check, found in told for row in found]
    verdicts.extend(str(row["verdict"]) for row in rows)
    return json.dumps(
        {"verdict": VERDICTS[exit_code(verdicts)], "versions": versions(environment), "rows": rows}
    )


def exit_code(verdicts: Iterable[str]) -> int:
    """Return what ch-doctor ends with: 0 if all is well, 1 for warnings, 2 for problems."""
    told = set(verdicts)
    return VERDICTS.index(worst(verdict for verdict in VERDICTS if verdict in told))


def _plain(text: str) -> str:
    """Return text without what a terminal would obey: it may be from an image, or a daemon."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
