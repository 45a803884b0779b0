"""COPY, ADD, RSYNC and WORKDIR as steps of a build."""

import posixpath
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chlaunch.errors import BuildError
from chlaunch.image.build import copying, sources
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin, Wanted
from chlaunch.image.build.state import State, derived, now
from chlaunch.image.compress import pieces
from chlaunch.image.dockerfile import syntax
from chlaunch.image.store import Layer
from chlaunch.image.unpack import Limits, settle, unpack
from chlaunch.rootfs import over
from chlaunch.trees import Directory

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

# Where a tar archive says what it is (tar(5), "magic").
MAGIC_AT, MAGIC = 257, b"ustar"
SCHEMES = ("http://", "https://", "ftp://", "git://", "ssh://", "git@")
REMOTE = ("http://", "https://")


def copy(
    builder: "Builder", progress: "Progress", instruction: syntax.Copy | syntax.Add | syntax.Rsync
) -> None:
    """Carry out COPY, ADD or RSYNC.

    Raises:
        BuildError: a source is missing, or lies outside.

    """
    state = progress.state
    origin, key = _origin(builder, progress, instruction)
    if isinstance(instruction, syntax.Rsync):
        _rsync(builder, progress, instruction, origin)
        return
    remote = [word for word in instruction.sources if word.startswith(SCHEMES)]
    local = Wanted(
        tuple(word for word in instruction.sources if word not in remote),
        instruction.excludes,
        isinstance(instruction, syntax.Copy) and instruction.parents,
    )
    _check_remote(instruction, remote)
    bodies = tuple((file.name, file.content) for file in instruction.files)
    brings = key or _digest(origin, local, instruction)
    asks = [type(instruction).__name__, instruction.sources, instruction.destination, instruction.chmod]
    more = [instruction.excludes, local.parents, bodies, state.config.directory, builder.request.source_date]
    what = getattr(instruction, "checksum", ""), getattr(instruction, "unpack", None)

    def work(directory: Path) -> Layer | None:
        goal = Goal(instruction.destination, state.rootfs(builder.store), state.config.directory)
        rows = copying.destined(origin, local, goal, instruction.place) if local.words else []
        rows += copying.texts(bodies, goal)
        for number, word in enumerate(remote):
            rows += _fetched(builder, directory / f"url{number}", word, goal, what[0])
        if isinstance(instruction, syntax.Add):
            rows = _unpacked(rows, directory, goal, instruction)
        return written(builder, state, copying.with_mode(rows, instruction.chmod), directory)

    builder.do(progress, instruction, derived(state.key, [*asks, *more, brings, *what]), work)


def make_directory(builder: "Builder", progress: "Progress", instruction: syntax.Workdir) -> None:
    """Make the directory of WORKDIR where it is not there."""
    state = progress.state
    path = instruction.under(state.config.directory or "/")

    def work(directory: Path) -> Layer | None:
        image = state.rootfs(builder.store)
        if image.is_directory(path):
            return None
        names = copying.place_of(image, path)
        nothing = Origin(Directory(str(directory)), "nothing")
        return written(builder, state, [Entry(names, nothing, (), 0o40755, _time(builder))], directory)

    builder.do(
        progress, instruction, derived(state.key, ["WORKDIR", path, builder.request.source_date]), work
    )


def written(builder: "Builder", state: State, rows: Sequence[Entry], directory: Path) -> Layer | None:
    """Return the layer that entries become, in directory/layer; None for none.

    Raises:
        BuildError: one can't be written.

    """
    if not rows:
        return None
    tree = directory / "layer"
    tree.mkdir(mode=0o755)
    most = None if builder.request.source_date is None else int(builder.request.source_date * 1e9)
    size, members = copying.write(rows, tree, state.stack(builder.store), most)
    return Layer("", "", "", size, members)


def _origin(
    builder: "Builder", progress: "Progress", instruction: syntax.Copy | syntax.Add | syntax.Rsync
) -> tuple[Origin, str]:
    """Return where sources are, and a key of all that is there; empty for the context, which is looked at."""
    name = instruction.origin if isinstance(instruction, syntax.Copy) else ""
    if name:
        state = builder.origin(name, progress.step.stage, instruction)
        return Origin(state.stack(builder.store), name), state.key
    context = builder.request.context
    if context is None:
        if any(not word.startswith(SCHEMES) for word in instruction.sources):
            raise instruction.place.wrong("there is no context", 0, "give a directory instead of -")
        context = builder.store.path / "tmp"
    return Origin(Directory(str(context)), "the context", builder.request.left_out), ""


def _digest(origin: Origin, wanted: Wanted, instruction: syntax.Copy | syntax.Add) -> str:
    """Return the digest of what sources in the context bring."""
    rows: list[Entry] = []
    for number, (parts, status, name) in enumerate(sources.found(origin, wanted, instruction.place)):
        rows += sources.entries(origin, parts, status, (str(number), name), wanted.excludes)
    return sources.digest(rows)


def _check_remote(instruction: syntax.Copy | syntax.Add, remote: Sequence[str]) -> None:
    """Raise BuildError for a URL that nobody fetches here."""
    for word in remote:
        if isinstance(instruction, syntax.Copy):
            raise instruction.place.wrong("COPY takes no URL", word, "ADD does")
        if not word.startswith(REMOTE) or urlsplit(word).path.endswith(".git"):
            raise instruction.place.wrong(
                f"can't fetch {word}",
                word,
                "ADD fetches http and https; clone a repository with RUN git clone",
            )


def _fetched(builder: "Builder", directory: Path, url: str, goal: Goal, checksum: str) -> list[Entry]:
    """Return what is at a URL, as a file."""
    directory.mkdir()
    name = posixpath.basename(urlsplit(url).path)
    if goal.is_directory and not name:
        raise BuildError(f"can't ADD {url}: its name is empty", "name the file at the end of the destination")
    file = directory / (name or "file")
    builder.means.fetch(url, file, checksum)
    file.chmod(0o600)
    top = copying.place_of(goal.image, goal.target)
    origin = Origin(Directory(str(directory)), url)
    status = file.stat()
    names = (*top, file.name) if goal.is_directory else top
    return [Entry(names, origin, (file.name,), status.st_mode, status.st_mtime_ns)]


def _unpacked(rows: list[Entry], directory: Path, goal: Goal, instruction: syntax.Add) -> list[Entry]:
    """Return entries with archives replaced by what is in them; those from a URL only with --unpack."""
    result: list[Entry] = []
    for number, row in enumerate(rows):
        wanted = instruction.unpack if instruction.unpack is not None else "://" not in row.origin.shown
        if not wanted or row.content is not None or not _is_archive(row):
            result.append(row)
            continue
        tree = directory / f"archive{number}"
        tree.mkdir(mode=0o755)
        with row.open() as stream:
            unpacked = unpack(stream, tree, Limits(), overlay=False, shown="/".join(row.parts))
        settle(tree, unpacked, ())
        origin = Origin(Directory(str(tree)), "/".join(row.parts))
        status = tree.stat()
        into = copying.place_of(goal.image, goal.target)
        result += [entry for entry in sources.entries(origin, (), status, into, ()) if entry.names != into]
    return result


def _is_archive(row: Entry) -> bool:
    """Say whether a file is a tar archive, compressed or not, by what is in it, as Docker does."""
    if not row.mode & 0o100000:
        return False
    try:
        with row.open() as stream:
            first = b""
            for piece in pieces(stream, "archive"):
                first += piece
                if len(first) >= MAGIC_AT + len(MAGIC):
                    break
    except (OSError, BuildError):
        return False
    return first[MAGIC_AT:].startswith(MAGIC)


def _rsync(builder: "Builder", progress: "Progress", instruction: syntax.Rsync, origin: Origin) -> None:
    """Carry out RSYNC, with the host's rsync, from the context into a layer."""
    state, place = progress.state, instruction.place
    wanted = Wanted(instruction.sources)
    rows: list[Entry] = []
    for number, (parts, status, name) in enumerate(sources.found(origin, wanted, place)):
        rows += sources.entries(origin, parts, status, (str(number), name), ())
    asks = ["RSYNC", instruction.sources, instruction.destination, instruction.preset, instruction.options]

    def work(directory: Path) -> Layer | None:
        image = state.rootfs(builder.store)
        goal = Goal(instruction.destination, image, state.config.directory)
        names = copying.place_of(image, goal.target)
        staged = directory / "staged"
        staged.mkdir()
        _call_rsync(builder, instruction, staged)
        origin = Origin(Directory(str(staged)), "rsync")
        found = list(sources.entries(origin, (), staged.stat(), names, ()))
        return written(builder, state, [row for row in found if row.names != names or names], directory)

    key = derived(
        state.key, [*asks, state.config.directory, sources.digest(rows), builder.request.source_date]
    )
    builder.do(progress, instruction, key, work)


# As Charliecloud has them: +m keeps metadata, +l also follows links that lead outside, +u copies all links as
# they are, +z nothing by default.
PRESETS = {
    "": ("-a", "--no-owner", "--no-group", "--safe-links"),
    "m": ("-a", "--no-owner", "--no-group", "--safe-links"),
    "l": ("-a", "--no-owner", "--no-group", "--copy-unsafe-links"),
    "u": ("-a", "--no-owner", "--no-group", "--links"),
    "z": (),
}


def _call_rsync(builder: "Builder", instruction: syntax.Rsync, target: Path) -> None:
    """Run rsync in the context."""
    words = [
        "rsync",
        *PRESETS[instruction.preset],
        *instruction.options,
        "--",
        *instruction.sources,
        f"{target}/",
    ]
    try:
        done = subprocess.run(
            words,
            cwd=builder.request.context,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise BuildError(f"can't execute rsync: {error.strerror}", "install rsync") from error
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BuildError(f"build failed: RSYNC: {why[0]}", "see rsync(1)")


def _time(builder: "Builder") -> int:
    """Return when what has no time of its own was made, in ns."""
    return int(now(builder.request.source_date) * 1e9)


def entries_of_context(builder: "Builder", path: str, instruction: syntax.Run) -> list[Entry]:
    """Return what is at a path of the context, for a mount of it."""
    origin = Origin(Directory(str(builder.request.context)), "the context", builder.request.left_out)
    real = over(origin.tree, origin.shown).locate(path or "/")
    parts = tuple(part for part in (real or "").split("/") if part)
    status = origin.tree.status(parts) if real is not None else None
    if status is None:
        raise instruction.place.wrong(f"{path}: not in the context", path or 0)
    return list(sources.entries(origin, parts, status, (), ()))
