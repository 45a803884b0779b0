"""RUN's mounts: files of the context, a stage or an image; caches, memory, secrets, SSH agents.

The rules are BuildKit's (Dockerfile reference, "RUN --mount"). A directory of a stage or an image is shown as
its layers are. What is of the context is copied, so that it does not change while the command runs; but much
of it, from which nothing is left out, is shown in place, and looked at again afterwards.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.errors import BuildError
from chlaunch.image import flatten, locks
from chlaunch.image.build import confided, copying, sources, steps
from chlaunch.image.build.binds import LAYERS_MOST, Bind, Layers, Memory, Seen
from chlaunch.image.build.sources import Entry, Origin
from chlaunch.image.build.state import derived
from chlaunch.image.dockerfile import checks, syntax
from chlaunch.image.dockerfile.mounts import Mount
from chlaunch.image.inside import DEPTH_MOST, Inside
from chlaunch.rootfs import over
from chlaunch.trees import Directory, Parts, Stack

if TYPE_CHECKING:
    from chlaunch.image.build.builder import Builder, Progress

# Bytes of the context that are copied. Copying takes a tenth of a second then, and who works on sources
# meanwhile does no harm; with more, it is data.
COPIED_MOST = 64 << 20


@dataclass(frozen=True)
class Step:
    """A RUN of a stage that is being built."""

    builder: "Builder"
    progress: "Progress"
    instruction: syntax.Run


@dataclass(frozen=True)
class Looked:
    """A mount whose target is absolute, and what there is to mount.

    key: what a step's result depends on of it. origin, parts: where it comes from; begun: what a stage or an
    image is known by; rows: all of it, if it comes from the context.
    """

    mount: Mount
    key: object
    origin: Origin | None = None
    begun: str = ""
    parts: Parts = ()
    rows: tuple[Entry, ...] = ()


@dataclass
class Mounts:
    """What a step sees besides the image.

    own: of the binds, directories in which mount points may be made. shown: what of the context it sees in
    place. is_other: what was copied was not any more what was looked at.
    """

    binds: list[Seen] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    own: list[Bind] = field(default_factory=list)
    shown: list[Looked] = field(default_factory=list)
    is_other: bool = False

    def add_own(self, bind: Bind) -> None:
        """Add a directory in which mount points may be made."""
        self.binds.append(bind)
        self.own.append(bind)


def look(step: Step, written: Mount) -> Looked:
    """Return a mount with what there is.

    Raises:
        BuildError: its source is not there, or can't be read.

    """
    place, state = step.instruction.place, step.progress.state
    target = written.target or confided.default_target(step.instruction, written)
    mount = (
        replace(written, target=checks.absolute(state.config.directory or "/", target)) if target else written
    )
    said: list[object] = [mount.kind, written.target, mount.identifier, mount.variable, mount.read_only]
    if mount.kind == "bind":
        said = [mount.kind, written.target, mount.source, mount.read_only]
    elif mount.kind != "cache" or not mount.origin:
        return Looked(mount, said)  # of secrets and caches it counts only that there are
    if mount.origin:
        state = step.builder.origin(mount.origin, step.progress.step.stage, step.instruction)
        origin = Origin(state.stack(step.builder.store), mount.origin)
        key = [*said, state.key] if mount.kind == "bind" else [*said, mount.source, state.key]
        return Looked(mount, key, origin, state.key)  # a step that is known looks at no file of it
    request = step.builder.request
    if request.context is None:
        raise place.failed("there is no context", 0, "give a directory instead of -")
    origin = Origin(Directory(str(request.context)), "the context", request.left_out)
    looked = _located(step, Looked(mount, said, origin))
    rows = _rows(looked)
    if not rows and mount.source:
        raise place.failed(f"{mount.source}: not in the context", mount.source)
    digest = sources.digest(rows, step.builder.store.path / steps.DIGESTS)
    return replace(looked, key=[*said, digest], rows=tuple(rows))


def remark(step: Step) -> None:
    """Tell what is not as the words say."""
    for mount in step.instruction.mounts:
        if mount.uid or mount.gid:
            step.builder.remark(f"RUN --mount=type={mount.kind}: uid and gid are left: all belongs to root")
        if mount.kind == "ssh" and mount.mode not in (None, 0o600):
            step.builder.remark("RUN --mount=type=ssh: mode is left: the socket is the agent's own")


@contextmanager
def given(step: Step, looked: Sequence[Looked], directory: Path) -> Iterator[Mounts]:
    """Give what a step sees; what is only for it is made in directory.

    Raises:
        BuildError: it can't be had.

    """
    looked = [_located(step, one) for one in looked]
    mounts = Mounts()
    say = step.builder.means.events.say
    above = step.builder.store.path / steps.MOUNTS
    with ExitStack() as stack:
        # One after the other, by name: so no two builds wait for each other in a circle.
        for name, identifier in sorted(_locked_caches(looked)):
            above.mkdir(exist_ok=True)
            stack.enter_context(locks.held(above / f"{name}.lock", f"using cache {identifier}", say))
        # A mount may be below another, whatever their order.
        for number, one in enumerate(sorted(looked, key=lambda one: one.mount.target.split("/"))):
            place = directory / f"mount{number}"
            mount = one.mount
            match mount.kind:
                case "bind":
                    is_above = any(other.mount.target.startswith(f"{mount.target}/") for other in looked)
                    _bind(one, place, mounts, may_show=not is_above and not step.builder.unstackable())
                case "cache":
                    _cache(step, one, place, mounts)
                case "tmpfs" if mount.read_only:
                    place.mkdir(mode=0o755)
                    mounts.add_own(Bind(place, mount.target))
                case "tmpfs":
                    mounts.binds.append(Memory(mount.target, mount.size))
                case "secret":
                    confided.secret(step, mount, place, mounts)
                case "ssh":
                    confided.agent(step, mount, place, mounts)
        _make_points(mounts)
        yield mounts


def has_changed(mounts: Mounts) -> bool:
    """Say whether files of the context were not, or are not, as they were when they were looked at."""
    return mounts.is_other or any(_is_other(one) for one in mounts.shown)


def _is_other(looked: Looked) -> bool:
    try:
        return sources.stamps(looked.rows) != sources.stamps(_rows(looked))
    except BuildError:
        return True


def _located(step: Step, looked: Looked) -> Looked:
    """Return it with where its source is, links followed within where that comes from."""
    source, origin = looked.mount.source, looked.origin
    if origin is None or looked.rows:
        return looked
    real = over(origin.tree, origin.shown).locate(source or "/")
    if real is None and source.strip("/"):
        raise step.instruction.place.failed(f"{source}: not in {origin.shown}", source)
    return replace(looked, parts=tuple(part for part in (real or "").split("/") if part))


def _rows(looked: Looked) -> list[Entry]:
    """Return all that there is to mount; its names are below the mount point."""
    origin = looked.origin
    status = None if origin is None else origin.tree.status(looked.parts)
    if origin is None or status is None:
        return []
    return list(sources.entries(origin, looked.parts, status, (), ()))


def _bind(looked: Looked, place: Path, mounts: Mounts, *, may_show: bool) -> None:
    """Show part of the context, of a stage, or of an image; what is written to it is nobody's.

    may_show: it need be no copy, as far as others know.
    """
    mount = looked.mount
    in_place = _in_place(looked) if may_show and mount.read_only else ()
    if in_place and (mount.origin or _can_be_shown(in_place[0], place)):
        mounts.binds.append(Layers(in_place, mount.target))
        mounts.shown += [] if mount.origin else [looked]
        return
    rows = list(looked.rows) or _rows(looked)
    source = place
    if len(rows) == 1 and not stat.S_ISDIR(rows[0].mode):
        rows = [replace(rows[0], names=("file",))]
        source = place / "file"
    _write(rows, place)
    mounts.is_other = mounts.is_other or (not mount.origin and _is_other(looked))
    mounts.add_own(Bind(source, mount.target, read_only=mount.read_only))


def _write(rows: Sequence[Entry], place: Path) -> None:
    """Write what is to be mounted into a new directory."""
    place.mkdir(mode=0o755)
    copying.write(rows, place, Stack("", ()), None)


def _in_place(looked: Looked) -> tuple[Path, ...]:
    """Return directories, the topmost first, that show as one what is to be mounted; none for a copy."""
    tree = None if looked.origin is None else looked.origin.tree
    found: tuple[Path, ...] = ()
    if isinstance(tree, Stack) and stat.S_ISDIR(tree.mode(looked.parts) or 0):
        found = tuple(Path(path) for path in tree.directories(looked.parts))
    elif isinstance(tree, Directory):
        path = Path(tree.top, *looked.parts)
        found = (path,) if looked.rows and _is_much(path, len(looked.rows) - 1) else ()
    return () if len(found) > LAYERS_MOST or any(":" in str(path) for path in found) else found


def _can_be_shown(directory: Path, place: Path) -> bool:
    """Say whether the file system of a context lets it be a layer: on a cluster's it may not."""
    trial = place.with_name(f"{place.name}.trial")
    trial.mkdir()
    return not flatten.refusal(trial, str(directory))


def _is_much(directory: Path, members: int) -> bool:
    """Say whether a directory is large, and all that is in it are so many members of one file system."""
    if not stat.S_ISDIR((top := directory.lstat()).st_mode):
        return False
    size = 0
    todo = [directory]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                members -= 1
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
                if status.st_dev != top.st_dev:
                    return False
                if stat.S_ISDIR(status.st_mode):
                    todo.append(Path(entry.path))
    return members == 0 and size > COPIED_MOST


def _locked_caches(looked: Sequence[Looked]) -> set[tuple[str, str]]:
    """Return names and identifiers of caches that one build has at a time: sharing=locked and private."""
    return {
        (_cache_name(one), one.mount.identifier)
        for one in looked
        if one.mount.kind == "cache" and one.mount.sharing != "shared"
    }


def _cache_name(looked: Looked) -> str:
    """Return what a cache is known by: its identifier, and what it began with."""
    identifier = looked.mount.identifier.encode("utf-8", "surrogateescape")
    begun = derived(looked.begun, looked.parts).encode() if looked.mount.origin else b""
    return hashlib.sha256(identifier + begun).hexdigest()[:32]


def _cache(step: Step, looked: Looked, new: Path, mounts: Mounts) -> None:
    """Show a directory that outlives builds; it begins empty, or with files of a stage or an image."""
    mount, name = looked.mount, _cache_name(looked)
    place = step.builder.store.path / steps.MOUNTS / name
    mode = 0o755 if mount.mode is None else mount.mode & 0o1777 | stat.S_IRWXU
    place.parent.mkdir(parents=True, exist_ok=True)
    if not mount.origin:
        place.mkdir(mode=mode, exist_ok=True)
    elif not place.is_dir():
        why = f"filling cache {mount.identifier}"
        with locks.held(place.with_name(f"{name}.new"), why, step.builder.means.events.say):
            if not place.is_dir():
                _fill(step, looked, new)
                new.chmod(mode)
                new.rename(place)
    mounts.add_own(Bind(place, mount.target, read_only=mount.read_only))


def _fill(step: Step, looked: Looked, new: Path) -> None:
    """Write what a cache begins with."""
    rows = _rows(looked)
    if rows and not stat.S_ISDIR(rows[0].mode):
        why = f"{looked.mount.source}: a cache begins with a directory, and this is a file"
        raise step.instruction.place.failed(why, looked.mount.source)
    _write(rows, new)


def _make_points(mounts: Mounts) -> None:
    """Make mount points below other mounts, in directories that are ours; what can't be, ch-run tells."""
    for number, bind in enumerate(mounts.binds):
        above = [one for one in mounts.binds[:number] if bind.target.startswith(f"{one.target}/")]
        if not above or above[-1] not in mounts.own:
            continue
        parent = above[-1]
        names = tuple(os.fsencode(bind.target.removeprefix(f"{parent.target}/")).split(b"/"))
        with suppress(OSError), Inside(str(parent.source), DEPTH_MOST) as inside:
            if bind.is_directory:
                inside.directory(names, 0)
                continue
            directory = inside.directory(names[:-1], 0).descriptor
            os.close(os.open(names[-1], copying.NEW, 0o644, dir_fd=directory))
