"""What a stage is between two instructions: layers, what the image says of itself, a key for all of it."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chlaunch.image.manifest import Config, Platform
from chlaunch.image.records import Layer
from chlaunch.image.store import Store
from chlaunch.rootfs import Rootfs, over
from chlaunch.trees import Directory, Stack

EMPTY_KEY = "scratch"


@dataclass(frozen=True)
class State:
    """A stage so far.

    layers: the lowest first. key: what led here, as a digest; the same key means the same content. made: when
    its newest layer was made, seconds since 1970.
    """

    layers: tuple[Layer, ...]
    key: str
    config: Config
    made: float = 0.0

    def trees(self, store: Store) -> list[Path]:
        """Return where the layers are unpacked, the lowest first."""
        return [store.tree(layer) for layer in self.layers]

    def stack(self, store: Store) -> Stack:
        """Return the layers as overlayfs shows them."""
        return Stack("", tuple(Directory(str(path)) for path in reversed(self.trees(store))))

    def rootfs(self, store: Store) -> Rootfs:
        """Return the view of it in which links are followed."""
        return over(self.stack(store), "the image so far")

    def with_layer(self, layer: Layer, made: float) -> "State":
        """Return it with one more layer, whose key no other ever has; one that is whole is the only one."""
        more = replace(self, layers=(*self.layers, layer), key=layer.key, made=max(made, self.made))
        return more.merged(layer, len(more.layers)) if layer.is_single else more

    def merged(self, layer: Layer, count: int) -> "State":
        """Return it with one layer in place of the upper ones. count: of these."""
        rows = [dict(row) for row in self.config.history]
        made = [row for row in rows if not row.get("empty_layer")]
        # The last one's row stands for all of them.
        for row in made[-count:-1]:
            row["empty_layer"] = True
        layers = (*self.layers[: len(self.layers) - count], layer)
        return replace(self, layers=layers, config=replace(self.config, history=tuple(rows)))

    def with_history(self, said: str, *, empty: bool) -> "State":
        """Return it with one more row in its history, which is what an instruction said."""
        row: dict[str, Any] = {"created_by": said, "comment": "chlaunch"}
        if empty:
            row["empty_layer"] = True
        return replace(self, config=replace(self.config, history=(*self.config.history, row)))


def scratch(platform: Platform) -> State:
    """Return the state of FROM scratch."""
    config = Config(platform, (), None, None, "", "", None, {}, (), (), (), {}, b"")
    return State((), EMPTY_KEY, config)


def derived(key: str, what: Sequence[Any]) -> str:
    """Return the key of what follows from a key."""
    said = json.dumps([key, *what], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(said.encode("ascii")).hexdigest()


def epoch(environment: str | None) -> float | None:
    """Return the time that SOURCE_DATE_EPOCH names (reproducible-builds.org); None if it names none."""
    return float(environment) if environment and environment.isdigit() else None


def now(source_date: float | None) -> float:
    """Return the time to say that something was made at."""
    return time.time() if source_date is None else source_date
