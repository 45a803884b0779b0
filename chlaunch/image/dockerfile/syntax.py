"""What a Dockerfile consists of, as data. Words are split but have their variables still in them.

Each instruction knows its place; ``expanded(scope)`` gives the same instruction with the values put in, and
raises BuildError where a word has no value or one that the instruction can't have. For the instructions that
BuildKit expands nothing in, it gives the instruction itself.

They are neither compared nor printed: to make what that takes, for all classes, is 6 ms of each build.
"""

from dataclasses import dataclass, replace
from typing import Any

from chlaunch.image.dockerfile import checks
from chlaunch.image.dockerfile.command import Command
from chlaunch.image.dockerfile.lines import Heredoc
from chlaunch.image.dockerfile.mounts import Mount
from chlaunch.image.dockerfile.place import Place, Remark
from chlaunch.image.dockerfile.scope import Scope

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, repr=False, eq=False)
class Arg:
    """ARG: names and defaults, None for a name without one. Expanded: the values that count."""

    place: Place
    pairs: tuple[tuple[str, str | None], ...]

    def expanded(self, scope: Scope) -> "Arg":
        """Return it with values; each sees those before it, as in BuildKit."""
        found: dict[str, str | None] = {}
        pairs = []
        for name, default in self.pairs:
            name = scope.expand(name, self.place)  # noqa: PLW2901  the name that counts
            found[name] = scope.argument(name, default, self.place, found)
            pairs.append((name, found[name]))
        return replace(self, pairs=tuple(pairs))


@dataclass(frozen=True, repr=False, eq=False)
class Env:
    """ENV: names and values."""

    place: Place
    pairs: Pairs

    def expanded(self, scope: Scope) -> "Env":
        """Return it with values; all of them as before the instruction."""
        return replace(self, pairs=_pairs(self.pairs, scope, self.place))


@dataclass(frozen=True, repr=False, eq=False)
class Label:
    """LABEL: names and values."""

    place: Place
    pairs: Pairs

    def expanded(self, scope: Scope) -> "Label":
        """Return it with values."""
        return replace(self, pairs=_pairs(self.pairs, scope, self.place))


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """RUN. network: default, none or host. security: sandbox or insecure."""

    place: Place
    command: Command
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"

    def expanded(self, scope: Scope) -> "Run":
        """Return it with values in its mounts; variables in the command are the shell's affair."""
        mounts = tuple(mount.expanded(scope, self.place) for mount in self.mounts)
        return replace(self, mounts=mounts)


@dataclass(frozen=True, repr=False, eq=False)
class Copy:
    """COPY. files: here-documents, which are sources, too. origin: --from; empty for the context."""

    place: Place
    sources: tuple[str, ...]
    destination: str
    files: tuple[Heredoc, ...] = ()
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()

    def expanded(self, scope: Scope) -> "Copy":
        """Return it with values."""
        return replace(self, **_copied(self, scope))


@dataclass(frozen=True, repr=False, eq=False)
class Add:
    """ADD.

    checksum: ``sha256:…`` or empty. unpack: None if it depends on the source, as it does by default.
    """

    place: Place
    sources: tuple[str, ...]
    destination: str
    files: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None

    def expanded(self, scope: Scope) -> "Add":
        """Return it with values."""
        checksum = scope.expand(self.checksum, self.place)
        checks.checksum(checksum, self.place)
        return replace(self, checksum=checksum, **_copied(self, scope))


@dataclass(frozen=True, repr=False, eq=False)
class Rsync:
    """RSYNC, or NSYNC with new. preset: the letter after +, or empty. options: rsync's."""

    place: Place
    sources: tuple[str, ...]
    destination: str
    preset: str = ""
    options: tuple[str, ...] = ()
    new: bool = False

    def expanded(self, scope: Scope) -> "Rsync":
        """Return it with values."""
        return replace(
            self,
            sources=_each(self.sources, scope, self.place),
            destination=scope.expand(self.destination, self.place),
            options=_each(self.options, scope, self.place),
        )


@dataclass(frozen=True, repr=False, eq=False)
class Cmd:
    """CMD."""

    place: Place
    command: Command

    def expanded(self, scope: Scope) -> "Cmd":  # noqa: ARG002  every instruction has this method
        """Return it as it is."""
        return self


@dataclass(frozen=True, repr=False, eq=False)
class Entrypoint:
    """ENTRYPOINT."""

    place: Place
    command: Command

    def expanded(self, scope: Scope) -> "Entrypoint":  # noqa: ARG002  likewise
        """Return it as it is."""
        return self


@dataclass(frozen=True, repr=False, eq=False)
class Shell:
    """SHELL."""

    place: Place
    words: tuple[str, ...]

    def expanded(self, scope: Scope) -> "Shell":  # noqa: ARG002  likewise
        """Return it as it is."""
        return self


@dataclass(frozen=True, repr=False, eq=False)
class Healthcheck:
    """HEALTHCHECK.

    command: None for NONE. Times in nanoseconds, as image configurations have them; 0: default.
    """

    place: Place
    command: Command | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    def expanded(self, scope: Scope) -> "Healthcheck":  # noqa: ARG002  likewise
        """Return it as it is."""
        return self


@dataclass(frozen=True, repr=False, eq=False)
class Workdir:
    """WORKDIR. path: may be relative to the one before."""

    place: Place
    path: str

    def expanded(self, scope: Scope) -> "Workdir":
        """Return it with values."""
        path = scope.expand(self.path, self.place)
        checks.not_blank(path, self.path, self.place)
        return replace(self, path=path)

    def under(self, current: str) -> str:
        """Return the directory that it makes of the current one: absolute, without ``.`` and ``..``."""
        return checks.absolute(current, self.path)


@dataclass(frozen=True, repr=False, eq=False)
class User:
    """USER."""

    place: Place
    user: str

    def expanded(self, scope: Scope) -> "User":
        """Return it with values."""
        user = scope.expand(self.user, self.place)
        checks.not_blank(user, self.user, self.place)
        return replace(self, user=user)


@dataclass(frozen=True, repr=False, eq=False)
class Expose:
    """EXPOSE. ports: expanded, each is a port or a range, and /tcp, /udp or /sctp."""

    place: Place
    ports: tuple[str, ...]

    def expanded(self, scope: Scope) -> "Expose":
        """Return it with values; one word may become several ports."""
        words = [(word, port) for port in self.ports for word in scope.expand_words(port, self.place)]
        return replace(self, ports=tuple(checks.port(word, self.place, port) for word, port in words))


@dataclass(frozen=True, repr=False, eq=False)
class Volume:
    """VOLUME."""

    place: Place
    paths: tuple[str, ...]

    def expanded(self, scope: Scope) -> "Volume":
        """Return it with values."""
        paths = _each(self.paths, scope, self.place)
        for path, word in zip(paths, self.paths, strict=True):
            checks.not_blank(path, word, self.place)
        return replace(self, paths=paths)


@dataclass(frozen=True, repr=False, eq=False)
class Stopsignal:
    """STOPSIGNAL."""

    place: Place
    signal: str

    def expanded(self, scope: Scope) -> "Stopsignal":
        """Return it with values."""
        signal = scope.expand(self.signal, self.place)
        checks.stop_signal(signal, self.place, self.signal)
        return replace(self, signal=signal)


@dataclass(frozen=True, repr=False, eq=False)
class Maintainer:
    """MAINTAINER."""

    place: Place
    name: str

    def expanded(self, scope: Scope) -> "Maintainer":  # noqa: ARG002  likewise
        """Return it as it is."""
        return self


@dataclass(frozen=True, repr=False, eq=False)
class Onbuild:
    """ONBUILD.

    expression: what is kept in the image. instruction: what that is, for those who build on it.
    """

    place: Place
    expression: str
    instruction: "Instruction"

    def expanded(self, scope: Scope) -> "Onbuild":  # noqa: ARG002  likewise
        """Return it as it is: its variables are those of the build that triggers it."""
        return self


Instruction = (
    Arg | Env | Label | Run | Copy | Add | Rsync | Cmd | Entrypoint | Shell | Healthcheck | Workdir | User |
    Expose | Volume | Stopsignal | Maintainer | Onbuild
)  # fmt: skip


@dataclass(frozen=True, repr=False, eq=False)
class Stage:
    """What begins with FROM.

    index: from 0. base, platform: with variables in them. name: in lower case, or empty.
    """

    place: Place
    index: int
    base: str
    platform: str
    name: str
    instructions: tuple[Instruction, ...]

    @property
    def line(self) -> int:
        """Return the line of its FROM."""
        return self.place.line


@dataclass(frozen=True, repr=False, eq=False)
class Dockerfile:
    """A whole file. directives: syntax, escape, check. global_args: those before the first FROM."""

    directives: dict[str, str]
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[Remark, ...]


def _copied(instruction: Copy | Add, scope: Scope) -> dict[str, Any]:
    """Return the fields that COPY and ADD have in common, with values."""
    place = instruction.place
    sources = _each(instruction.sources, scope, place)
    destination = scope.expand(instruction.destination, place)
    for value, word in zip(
        (*sources, destination), (*instruction.sources, instruction.destination), strict=True
    ):
        checks.not_blank(value, word, place)
    chmod = scope.expand(instruction.chmod, place)
    checks.mode(chmod, place)
    return {
        "sources": sources,
        "destination": destination,
        "files": tuple(
            replace(file, body=scope.expand_body(file.content, place), expand=False, strip=False)
            if file.expand
            else file
            for file in instruction.files
        ),
        "chown": scope.expand(instruction.chown, place),
        "chmod": chmod,
        "excludes": _each(instruction.excludes, scope, place),
    }


def _each(words: tuple[str, ...], scope: Scope, place: Place) -> tuple[str, ...]:
    """Return the values of words."""
    return tuple(scope.expand(word, place) for word in words)


def _pairs(pairs: Pairs, scope: Scope, place: Place) -> Pairs:
    """Return the values of names and values."""
    expanded = tuple((scope.expand(name, place), scope.expand(value, place)) for name, value in pairs)
    for (name, _), (word, _) in zip(expanded, pairs, strict=True):
        checks.not_blank(name, word, place)
    return expanded
