"""The container as plain data, and its one rendering: ch-run's options.

Same fields, names and order as ``struct container`` in ``runtime/container.h``; a unit test compares them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Bind:
    """One bind mount: a path of the host, and the absolute path in the container where it appears.

    The source of an optional one may begin with ``$NAME``, a variable of the node; such a bind is left out
    where its source does not exist. An optional one is never read-only: ch-run has no option for both.
    kind: ``layers``: source is directories, ``DIR[:DIR...]``, shown as one, read-only; ``tmpfs``: memory, and
    source its size, empty for the kernel's.
    """

    source: str
    target: str
    optional: bool = False
    read_only: bool = False
    kind: Literal["path", "layers", "tmpfs"] = "path"


@dataclass(frozen=True)
class VariableChange:
    """One change to the environment. They are made in order, so the later wins.

    ``set``: name=value, and ``$X`` items of value between colons are expanded. ``unset``: every variable
    whose name matches the glob in name. ``default``: name=value unless name is set. ``file``: value is a file
    of NAME=VALUE lines on the host; None means the image's own /ch/environment. ``file_nul``: the same with
    NUL characters in place of line ends. literal (of ``set`` only): nothing is expanded.
    """

    kind: Literal["set", "unset", "default", "file", "file_nul"]
    name: str
    value: str | None = None
    literal: bool = False


@dataclass(frozen=True)
class Container:
    """All that ch-run needs to know. None leaves it to ch-run: the user's own ids, ``/``, its own tag.

    ld_cache: directories that the dynamic loader's cache is made anew to cover. trace: who is told the times
    of each start, ``ADDRESS[,ADDRESS...]:PORT/TOKEN``.
    """

    image: str
    storage: str | None = None
    binds: tuple[Bind, ...] = ()
    directory: str | None = None
    directory_optional: bool = False
    uid: int | None = None
    gid: int | None = None
    write: bool = False
    write_fake: str | None = None
    write_fake_rank: bool = False
    write_to: str | None = None
    private_tmp: bool = False
    keep_tmp: bool = False
    home: bool = False
    keep_passwd: bool = False
    seccomp: bool = False
    fuse_single: bool = False
    ld_cache: tuple[str, ...] = ()
    variables: tuple[VariableChange, ...] = ()
    join: bool = False
    join_tag: str | None = None
    join_pid: int | None = None
    trace: str | None = None
    command: tuple[str, ...] = ()


def words(container: Container) -> tuple[str, ...]:
    """Return the words after ``ch-run`` that describe container (ch-run(1), "Options")."""
    return (*_options(container), container.image, "--", *container.command)


def _options(container: Container) -> Iterator[str]:
    """Give ch-run's options, one word each."""
    for bind in container.binds:
        yield _bind(bind)
    if container.directory is not None:
        yield f"--cd{'-try' if container.directory_optional else ''}={container.directory}"
    flags = (
        ("write", container.write),
        ("private-tmp", container.private_tmp),
        ("no-tmp", container.keep_tmp),
        ("home", container.home),
        ("no-passwd", container.keep_passwd),
        ("seccomp", container.seccomp),
        ("fuse-single", container.fuse_single),
    )
    yield from (f"--{name}" for name, wanted in flags if wanted)
    values = (
        ("storage", container.storage),
        ("write-fake", container.write_fake),
        ("write-fake-scope", "rank" if container.write_fake_rank else None),
        ("write-to", container.write_to),
        ("uid", container.uid),
        ("gid", container.gid),
    )
    yield from (f"--{name}={value}" for name, value in values if value is not None)
    yield from (f"--ld-cache={directory}" for directory in container.ld_cache)
    for change in container.variables:
        yield _variable(change)
    if container.join:
        yield "--join"
    if container.join_tag is not None:
        yield f"--join-tag={container.join_tag}"
    if container.join_pid is not None:
        yield f"--join-pid={container.join_pid}"
    if container.trace is not None:
        yield f"--trace={container.trace}"


def _bind(bind: Bind) -> str:
    """Return the option for one bind; the target is left out where it is the source, as ch-run assumes."""
    if bind.kind == "tmpfs":
        return f"--tmpfs={bind.target}{':' if bind.source else ''}{bind.source}"
    if bind.kind == "layers":
        return f"--bind-layers={bind.source}:{bind.target}"
    target = "" if bind.target == bind.source else f":{bind.target}"
    kind = "-try" if bind.optional else "-ro" if bind.read_only else ""
    return f"--bind{kind}={bind.source}{target}"


def _variable(change: VariableChange) -> str:
    """Return the option for one change to the environment."""
    if change.kind == "unset":
        return f"--unset-env={change.name}"
    if change.kind == "default":
        return f"--env-default={change.name}={change.value}"
    if change.kind == "set":
        return f"--{'env' if change.literal else 'set-env'}={change.name}={change.value}"
    option = "--set-env0" if change.kind == "file_nul" else "--set-env"
    return option if change.value is None else f"{option}={change.value}"
