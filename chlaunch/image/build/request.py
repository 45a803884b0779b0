"""What a build is asked for, and who is told how it goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from chlaunch.image.dockerfile.ignore import Ignore
from chlaunch.image.dockerfile.syntax import Dockerfile
from chlaunch.image.events import Events
from chlaunch.image.manifest import Platform, host_platform
from chlaunch.image.records import StoredImage

if TYPE_CHECKING:
    from chlaunch.image.build.binds import Bind

FORCES = ("seccomp", "fakeroot", "none")
CACHES = ("enabled", "disabled", "rebuild")


@dataclass(frozen=True)
class Secret:
    """Something that a step may see and no image shall have: a file, or the value of a variable."""

    file: Path | None = None
    value: str = field(default="", repr=False)


@dataclass(frozen=True)
class Request:
    """A build. name: of the image in storage. context: None where there is none.

    given: --build-arg. cache: enabled; disabled: nothing is looked for and nothing kept; rebuild: nothing is
    looked for. force: how privileged calls are dealt with. commands: words to put behind programs in RUN.
    environment: the host's, of which steps get the proxies. source_date: SOURCE_DATE_EPOCH, seconds.
    interactive: RUN may read from the terminal. shell: start one where RUN fails. apart: what RUN prints goes
    to standard error. verify: git believes only known authorities.
    """

    dockerfile: Dockerfile
    name: str
    context: Path | None
    ch_run: str
    left_out: Ignore = field(default_factory=Ignore)
    target: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=host_platform)
    cache: str = "enabled"
    force: str = "seccomp"
    commands: tuple[tuple[str, ...], ...] = ()
    binds: "tuple[Bind, ...]" = ()
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    source_date: float | None = None
    interactive: bool = False
    shell: bool = False
    apart: bool = False
    verify: bool = True


class Report(Protocol):
    """Who is told of each instruction."""

    def begin(self, line: int, text: str, state: str) -> None:
        """Hear that one begins. state: ``*`` it was done before, ``.`` it is done now, a blank: neither."""

    def end(self, line: int, seconds: float) -> None:
        """Hear that one that had to be done is done."""


@dataclass(frozen=True)
class Means:
    """What a build works with. image: returns an image of a registry or of storage by its reference.

    fetch: brings what is at a URL into a file; checksum: ``sha256:…`` or empty. has: says whether image would
    find it in storage.
    """

    events: Events
    report: Report
    image: Callable[[str, Platform], StoredImage]
    fetch: Callable[[str, Path, str], None]
    has: Callable[[str, Platform], bool] = lambda _reference, _platform: False
