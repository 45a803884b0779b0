"""What a subcommand of ch-image was asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chlaunch.errors import UsageError
from chlaunch.image.events import Events
from chlaunch.image.manifest import Platform, host_platform
from chlaunch.image.opening import open_store
from chlaunch.image.store import Store
from chlaunch.rootfs import storage_directory

if TYPE_CHECKING:
    from chlaunch.image.unpack import Limits


@dataclass(frozen=True)
class Asked:
    """What was asked for: options of all subcommands and the subcommand's own (given), and who is told."""

    given: Mapping[str, Any]
    environment: Mapping[str, str]
    events: Events

    def store(self) -> Store:
        """Return the storage, made if it is not there."""
        store = open_store(self._path, self.events.say)
        assert store is not None  # noqa: S101  it was made
        return store

    def store_if_any(self) -> Store | None:
        """Return the storage; None if there is none yet."""
        return open_store(self._path, self.events.say, create=False)

    def platform(self) -> Platform | None:
        """Return what --arch says; None if any will do.

        Raises:
            UsageError: it can't be an architecture.

        """
        said = self.given["arch"] or "host"
        if said == "yolo":
            return None
        if said == "host":
            return host_platform()
        architecture, _, variant = said.partition("/")
        if not architecture.isalnum() or (variant and not variant.isalnum()):
            raise UsageError(f"--arch: no architecture: {said}", "host, yolo, amd64, arm64/v8 or the like")
        return Platform(architecture, variant)

    def result(self, said: Mapping[str, Any]) -> None:
        """Write what came of it to standard output, where JSON was asked for."""
        if self.given["json"]:
            click.echo(json.dumps(said))

    @property
    def _path(self) -> Path:
        return Path(storage_directory(self.given["storage"] or "", self.environment))


def name_in_storage(name: str, platform: Platform | None) -> str:
    """Return under which name an image for a platform is stored: this machine's have none added to theirs."""
    if platform is None or platform.usual == host_platform().usual:
        return name
    return f"{name}~{str(platform.usual).replace('/', '-')}"


def limits_of(asked: Asked) -> "Limits":
    """Return what an image may need, as the options have it."""
    from chlaunch.image.unpack import Limits  # noqa: PLC0415  20 ms to load, and few commands unpack

    limits = Limits()
    size, members = asked.given["max_size"], asked.given["max_members"]
    return replace(limits, size=(size << 30) if size else limits.size, members=members or limits.members)
