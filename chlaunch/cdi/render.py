"""From CDI edits to ch-run's plain options: binds, variables, directories for the loader's cache.

The container has the host's /dev, /proc and /sys as they are, so what is there needs no option; it must only
be on this host. What a user can't do, or ch-run can't, is an error or a warning that names the file.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from chlaunch.cdi import hooks
from chlaunch.cdi.hooks import Work
from chlaunch.cdi.resolve import Edits, Part
from chlaunch.cdi.spec import DeviceNode, Hook, Mount
from chlaunch.errors import CdiError

# Trees of the host that every container has (ch-run(1), "Description").
VISIBLE = ("/dev", "/proc", "/sys")

NODE_TYPES = {"b": stat.S_ISBLK, "c": stat.S_ISCHR, "u": stat.S_ISCHR, "p": stat.S_ISFIFO}

COPY = "or copy the file, take it out, and ask for the copy by its path"


@dataclass(frozen=True)
class Why:
    """What something is for: a device, or the kind of all devices of a file; and the file."""

    what: str
    file: str


@dataclass(frozen=True)
class Bind:
    """A path of the host and where it appears in the container."""

    source: str
    target: str
    read_only: bool
    why: Why


@dataclass(frozen=True)
class Variable:
    """A variable of the container's environment."""

    name: str
    value: str
    why: Why


@dataclass(frozen=True)
class Named:
    """Something that is named and no more: a directory for the cache, a device file that is seen anyway."""

    name: str
    why: Why


@dataclass(frozen=True)
class Omission:
    """A hook that was left out, with its options, and why that does no harm."""

    hook: str
    options: tuple[str, ...]
    reason: str
    why: Why


@dataclass(frozen=True)
class Plain:
    """All that devices need of a container. warnings: what the user should hear in any case."""

    binds: tuple[Bind, ...] = ()
    variables: tuple[Variable, ...] = ()
    ld_cache: tuple[Named, ...] = ()
    visible: tuple[Named, ...] = ()
    omissions: tuple[Omission, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """A hook, whose it is, and what it does."""

    part: Part
    hook: Hook
    work: Work


def words(plain: Plain) -> tuple[str, ...]:
    """Return ch-run's options for plain."""
    return (
        *(f"--bind{'-ro' if bind.read_only else ''}={bind.source}:{bind.target}" for bind in plain.binds),
        *(f"--env={variable.name}={variable.value}" for variable in plain.variables),
        *(f"--ld-cache={folder.name}" for folder in plain.ld_cache),
    )


def plain(edits: Edits) -> Plain:
    """Return what edits come to on this host; a later bind or variable replaces an earlier one of that name.

    Raises:
        CdiError: this host lacks what is to be shown, or a user can't do, or ch-run, what is asked for.

    """
    done = [
        Done(part, hook, hooks.understand(hook, part)) for part in edits.parts for hook in part.edits.hooks
    ]
    shown = {bind.target: bind for part in edits.parts for bind in _shown(part)}
    binds = {target: bind for target, bind in shown.items() if not _is_visible(bind)}
    folders = [(folder, hook) for hook in done for folder in _folders(hook, binds)]
    binds.update({bind.target: bind for bind in _sonames({folder for folder, _ in folders}, binds)})
    binds.update({bind.target: bind for bind in _links(done, binds)})
    omissions = [hook for hook in done if hook.work.left_out]
    warnings = (text for part in edits.parts for text in _warnings(part))
    return Plain(
        binds=tuple(sorted(map(_checked, binds.values()), key=lambda bind: bind.target.count("/"))),
        variables=_variables(edits),
        ld_cache=_once(Named(folder, _why(hook.part)) for folder, hook in folders if hook.work.cache),
        visible=tuple(Named(bind.target, bind.why) for bind in shown.values() if _is_visible(bind)),
        omissions=tuple(
            Omission(hook.work.name, hook.work.options, hook.work.left_out, _why(hook.part))
            for hook in omissions
        ),
        warnings=(*edits.warnings, *warnings, *_absent_links(done)),
    )


def _shown(part: Part) -> Iterator[Bind]:
    """Give the device files and mounts of part as binds, whether or not they are seen without."""
    for name in part.edits.interfaces:
        raise CdiError(
            f"{part.file}: {part.what} wants network interface {name} moved, which no user may do",
            f"a container has the host's network anyway: {COPY}",
        )
    for node in part.edits.nodes:
        _check_node(node, part)
        yield Bind(_clean(node.host_path), _clean(node.path), read_only=False, why=_why(part))
    for mount in part.edits.mounts:
        _check_mount(mount, part)
        last = [option for option in mount.options if option in ("ro", "rw")][-1:]
        yield Bind(
            _clean(mount.host_path), _clean(mount.container_path), read_only=last == ["ro"], why=_why(part)
        )


def _check_node(node: DeviceNode, part: Part) -> None:
    """Raise CdiError if a device file is not on this host, or another kind of file."""
    mode = _mode(node.host_path, part, "device file")
    is_type = NODE_TYPES.get(node.type)
    if not (is_type(mode) if is_type else any(test(mode) for test in NODE_TYPES.values())):
        raise CdiError(
            f"{part.file}: {part.what} needs device file {node.host_path}, and on this host that is none"
            f"{f' of type {node.type}' if node.type else ''}",
            "make the file again with its vendor's tool",
        )


def _check_mount(mount: Mount, part: Part) -> None:
    """Raise CdiError if a mount is no bind, or not on this host."""
    if mount.type not in ("", "bind", "none"):
        raise CdiError(
            f"{part.file}: {part.what} wants a mount of type {mount.type} at {mount.container_path}, and"
            " ch-run makes bind mounts only",
            f"bind a directory of the host there; {COPY}",
        )
    _mode(mount.host_path, part, "path")


def _mode(path: str, part: Part, what: str) -> int:
    """Return the mode of a path on this host."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116  its errno words the message
    except OSError as error:
        raise CdiError(
            f"{part.file}: {part.what} needs {what} {path} of this host: {error.strerror}",
            "is the device there and its driver loaded? then make the file again with its vendor's tool",
        ) from error


def _checked(bind: Bind) -> Bind:
    """Return bind, if ch-run can make it: its SRC:DST has one colon, and the host's trees no new names."""
    if _below(bind.target, VISIBLE) and not os.path.lexists(bind.target):
        raise CdiError(
            f"{bind.why.file}: {bind.why.what} wants {bind.source} at {bind.target}, which this host does not"
            " have, and the container's /dev, /proc and /sys are the host's",
            f"if the device does without it: {COPY.removeprefix('or ')}",
        )
    for path in (bind.source, bind.target):
        if ":" in path:
            raise CdiError(
                f"{bind.why.file}: {bind.why.what} needs {path}, and a path with a colon can't be bound",
                f"if the device does without it: {COPY.removeprefix('or ')}",
            )
    return bind


def _variables(edits: Edits) -> tuple[Variable, ...]:
    """Return the variables, each once, with its last value."""
    found = {}
    for part in edits.parts:
        for text in part.edits.env:
            name, _, value = text.partition("=")
            found[name] = Variable(name, value, _why(part))
    return tuple(found.values())


def _warnings(part: Part) -> Iterator[str]:
    """Give what a user can't be given, and may do without."""
    groups = {0, os.getegid(), *os.getgroups()}
    outside = [str(gid) for gid in part.edits.gids if gid not in groups]
    if outside:
        yield (
            f"{part.what} wants you in group {', '.join(outside)}, and you are not: its device files may be"
            f" closed to you; ask who runs this machine [{part.file}]"
        )
    if part.edits.intel_rdt:
        yield f"{part.what} wants shares of cache and memory set, which no user may do [{part.file}]"


def _folders(done: Done, binds: dict[str, Bind]) -> tuple[str, ...]:
    """Return the directories a hook works on; if it names none, those of the libraries of its file."""
    if done.work.cache and not done.work.folders:
        file = done.part.file
        libraries = [path for path, bind in binds.items() if bind.why.file == file and _stem(path)]
        return tuple(dict.fromkeys(os.path.dirname(path) for path in libraries))  # noqa: PTH120  pure
    return tuple(_clean(folder) for folder in done.work.folders)


def _once(folders: Iterator[Named]) -> tuple[Named, ...]:
    """Return folders, each once."""
    found: dict[str, Named] = {}
    for folder in folders:
        found.setdefault(folder.name, folder)
    return tuple(found.values())


def _sonames(folders: set[str], binds: dict[str, Bind]) -> Iterator[Bind]:
    """Give binds for the names by which programs ask for libraries in folders: libcuda.so.1 for one of 575.

    In a container that can be written to, ldconfig would make links of these names, and its cache has no
    others. On the host it has made them: they are what leads to a library, in the library's directory.
    """
    links: dict[str, dict[str, list[str]]] = {}
    for bind in binds.values():
        folder, name = os.path.split(bind.target)
        stem = _stem(name)
        if not stem or folder not in folders:
            continue
        directory = os.path.dirname(bind.source)  # noqa: PTH120  pure
        if directory not in links:
            links[directory] = _library_links(directory)
        for other in links[directory].get(stem, ()):
            is_it = os.path.realpath(f"{directory}/{other}") == os.path.realpath(bind.source)
            if is_it and f"{folder}/{other}" not in binds:
                yield Bind(bind.source, f"{folder}/{other}", bind.read_only, bind.why)


def _links(done: list[Done], binds: dict[str, Bind]) -> Iterator[Bind]:
    """Give binds that stand for the symbolic links of hooks: what a link leads to, at the link."""
    links = {_clean(link): target for hook in done for target, link in hook.work.links}
    for hook in done:
        for target, name in hook.work.links:
            link = _clean(name)
            if _below(link, VISIBLE) or _behind(link, {}, binds):
                continue  # as the host has it, or there already
            behind = _behind(link, links, binds)
            if behind is None:
                why = f"{target}, for the link {link}, is in no mount of the file"
                raise hooks.refusal(hook.hook, hook.part, why)
            source, read_only = behind
            yield Bind(source, link, read_only, _why(hook.part))


def _behind(path: str, links: dict[str, str], binds: dict[str, Bind]) -> tuple[str, bool] | None:
    """Return what a path of the container leads to, links followed: a host's path, and if read-only."""
    for _ in range(len(links) + 1):
        for tree in _ancestors(path):
            if tree in binds:
                source = binds[tree].source + path[len(tree) :]
                return (source, binds[tree].read_only) if os.path.lexists(source) else None
        if _below(path, VISIBLE) and os.path.lexists(path):
            return path, False
        if path not in links:
            return None
        path = _clean(os.path.join(os.path.dirname(path), links[path]))  # noqa: PTH118, PTH120  pure
    return None


def _absent_links(done: list[Done]) -> Iterator[str]:
    """Give a warning for each link in the host's own trees that is not there."""
    for hook in done:
        for _, name in hook.work.links:
            if _below(_clean(name), VISIBLE) and not os.path.lexists(name):
                yield f"{hook.part.what} wants link {name}, which this host does not have [{hook.part.file}]"


def _ancestors(path: str) -> Iterator[str]:
    """Give path and the directories it is in, the root left out."""
    while path != "/":
        yield path
        path = os.path.dirname(path)  # noqa: PTH120  pure


def _stem(path: str) -> str:
    """Return libX of libX.so.1 and its like; empty if it is no library."""
    stem, dot_so, rest = os.path.basename(path).partition(".so")  # noqa: PTH119  pure
    return stem if dot_so and stem.startswith("lib") and (not rest or rest[0] == ".") else ""


def _library_links(directory: str) -> dict[str, list[str]]:
    """Return the links of a host's directory that are named as libraries are, by stem; none if unreadable."""
    found: dict[str, list[str]] = {}
    try:
        with os.scandir(directory) as entries:
            for name in sorted(entry.name for entry in entries if entry.is_symlink()):
                found.setdefault(_stem(name), []).append(name)
    except OSError:
        return {}
    return found


def _is_visible(bind: Bind) -> bool:
    """Say whether the container has it without a bind."""
    return bind.source == bind.target and _below(bind.target, VISIBLE)


def _below(path: str, trees: tuple[str, ...]) -> bool:
    """Say whether path is one of trees or below one."""
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def _clean(path: str) -> str:
    """Return an absolute path without . and .. and doubled slashes."""
    return "/" + os.path.normpath(path).lstrip("/")


def _why(part: Part) -> Why:
    """Return what something of part is for."""
    return Why(part.what, part.file)
