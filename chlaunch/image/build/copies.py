"""COPY, ADD and WORKDIR as steps of a build."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image.build import adding, copying, repositories, rsync, sources, steps
from chlaunch.image.build.copying import Goal
from chlaunch.image.build.sources import Entry, Origin, Wanted
from chlaunch.image.build.state import derived, now
from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.records import Layer
from chlaunch.rootfs import over
from chlaunch.trees import Directory, Stack

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress
    from chlaunch.image.build.git import Resolved


def copy(
    builder: "Builder", progress: "Progress", instruction: syntax.Copy | syntax.Add | syntax.Rsync
) -> None:
    """Carry out COPY, ADD or RSYNC.

    Raises:
        BuildError: a source is missing, or lies outside; it can't be where it is to go.

    """
    if isinstance(instruction, syntax.Rsync):
        rsync.rsync(builder, progress, instruction)
        return
    origin, key = _origin(builder, progress, instruction)
    local, remote = _wanted(instruction)
    before = [] if key else _sources(origin, local, instruction)
    brings = key or sources.digest(before, builder.store.path / steps.DIGESTS)
    commits = repositories.resolved(builder, instruction)
    with adding.looked_at(builder, instruction, remote) as fetched:
        state = progress.state
        said = [*_asked(instruction, commits), state.config.directory, builder.request.source_date]
        asks = derived(state.key, said)

        def work(directory: Path) -> Layer | None:
            stack = state.stack(builder.store)
            goal = Goal(instruction.destination, over(stack, "the image so far"), state.config.directory)
            rows = _brought(builder, origin, local, instruction, goal)
            files = fetched.files or adding.fetch(builder, directory / "urls", instruction, remote)
            rows += [adding.entry(file, url, goal, instruction.place) for url, file in files.items()]
            if isinstance(instruction, syntax.Add):
                from chlaunch.image.build import archives  # noqa: PLC0415  20 ms, where a step is done

                rows = archives.unpacked(rows, directory, goal, instruction)
                rows += repositories.entries(builder, instruction, commits, directory, goal)
            layer = written(
                builder, stack, copying.with_mode(rows, instruction.chmod), directory, instruction.place
            )
            if before and sources.stamps(before) != sources.stamps(_sources(origin, local, instruction)):
                raise instruction.place.failed(
                    "files have changed while they were copied", 0, "build again when nobody writes there"
                )
            return layer

        builder.do(progress, instruction, derived(asks, [brings, fetched.digest]), work)


def _asked(instruction: syntax.Copy | syntax.Add, commits: Mapping[str, "Resolved"]) -> list[object]:
    """Return what an instruction says, with the commits that it means."""
    bodies = [(file.name, file.content) for file in instruction.files]
    words = [repositories.key(commits[word]) if word in commits else word for word in instruction.sources]
    asks = [type(instruction).__name__, words, instruction.destination, instruction.chmod]
    if isinstance(instruction, syntax.Add):
        return [*asks, instruction.excludes, bodies, instruction.checksum, instruction.unpack]
    return [*asks, instruction.excludes, bodies, instruction.parents]


def _brought(
    builder: "Builder", origin: Origin, local: Wanted, instruction: syntax.Copy | syntax.Add, goal: Goal
) -> list[Entry]:
    """Return what comes from the context, a stage or an image, and here-documents, at its place."""
    several = len(instruction.sources) + len(instruction.files) > 1
    alone = len(local.words) == len(instruction.sources) and not instruction.files
    rows = copying.destined(origin, local, goal, instruction.place, several=not alone and bool(local.words))
    bodies = tuple((file.name, file.content) for file in instruction.files)
    return rows + copying.texts(bodies, goal, _time(builder), several=several)


def make_directory(builder: "Builder", progress: "Progress", instruction: syntax.Workdir) -> None:
    """Make the directory of WORKDIR where it is not there."""
    state = progress.state
    path = instruction.under(state.config.directory or "/")

    def work(directory: Path) -> Layer | None:
        stack = state.stack(builder.store)
        image = over(stack, "the image so far")
        if image.is_directory(path):
            return None
        names = copying.place_of(image, path)
        nothing = Origin(Directory(str(directory)), "nothing")
        rows = [
            Entry(names[:end], nothing, (), 0o40755, _time(builder))
            for end in range(1, len(names) + 1)
            if image.mode("/" + "/".join(names[:end])) is None or end == len(names)
        ]
        return written(builder, stack, rows, directory, instruction.place)

    builder.do(
        progress, instruction, derived(state.key, ["WORKDIR", path, builder.request.source_date]), work
    )


def written(
    builder: "Builder", stack: Stack, rows: Sequence[Entry], directory: Path, place: Place
) -> Layer | None:
    """Return the layer that entries become on others, in directory/layer; None for none.

    Raises:
        BuildError: one can't be where it is to go, or can't be read.

    """
    rows = copying.landed(rows, over(stack, "the image so far"), place)
    if not rows:
        return None
    tree = directory / "layer"
    tree.mkdir(mode=0o755)
    most = None if builder.request.source_date is None else int(builder.request.source_date * 1e9)
    size, members = copying.write(rows, tree, stack, most)
    return Layer(steps.STEP, "", "", size, members)


def _wanted(instruction: syntax.Copy | syntax.Add) -> tuple[Wanted, list[str]]:
    """Return what comes from the context or a stage, and URLs."""
    remote = adding.urls(instruction)
    local = tuple(word for word in instruction.sources if not adding.is_url(word))
    parents = isinstance(instruction, syntax.Copy) and instruction.parents
    return Wanted(local, instruction.excludes, parents), remote


def _sources(origin: Origin, wanted: Wanted, instruction: syntax.Copy | syntax.Add) -> list[Entry]:
    """Return what sources bring, whatever the destination."""
    rows: list[Entry] = []
    for number, (parts, status, name) in enumerate(sources.found(origin, wanted, instruction.place)):
        rows += sources.entries(origin, parts, status, (str(number), name), wanted.excludes)
    return rows


def _origin(
    builder: "Builder", progress: "Progress", instruction: syntax.Copy | syntax.Add
) -> tuple[Origin, str]:
    """Return where sources are, and a key of all that is there; empty for the context, which is looked at."""
    name = instruction.origin if isinstance(instruction, syntax.Copy) else ""
    if name:
        state = builder.origin(name, progress.step.stage, instruction)
        return Origin(state.stack(builder.store), name), state.key
    context = builder.request.context
    if context is None:
        if any(not adding.is_url(word) for word in instruction.sources):
            raise instruction.place.failed("there is no context", 0, "give a directory instead of -")
        context = builder.store.path / "tmp"
    return Origin(Directory(str(context)), "the context", builder.request.left_out), ""


def _time(builder: "Builder") -> int:
    """Return when what has no time of its own was made, in ns."""
    return int(now(builder.request.source_date) * 1e9)
