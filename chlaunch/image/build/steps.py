"""What was built before: for each key of a step, the layer that came of it.

A record is one small file in the storage's ``cache``; a step that has one touches no file of an image. What
is remembered is worth nothing without its layer, so a file that is damaged counts as none.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from chlaunch.image.records import Layer, load
from chlaunch.image.store import Store

# Of storage: records, and below them what RUN --mount=type=cache keeps and digests of large files.
DIRECTORY = "cache"
MOUNTS = "cache/mounts"
DIGESTS = "cache/digests"


# What keys of layers that came of one begin with.
STEP = "step"


@dataclass(frozen=True)
class Step:
    """A step that was done. parent: the key of the state it started from. made: seconds since 1970."""

    key: str
    parent: str
    said: str
    layer: str
    made: float


def find(store: Store, key: str) -> tuple[Step, Layer | None] | None:
    """Return what came of a step, maybe without a layer; None if it was not done, or that has gone."""
    step = _read(_path(store, key))
    if step is None or not step.layer:
        return None if step is None else (step, None)
    layer = store.layer(step.layer)
    return None if layer is None else (step, layer)


def remember(store: Store, step: Step) -> None:
    """Keep what came of a step."""
    said = {"parent": step.parent, "said": step.said, "layer": step.layer, "made": step.made}
    store.write(_path(store, step.key), json.dumps(said).encode(), durable=False)


def all_steps(store: Store) -> Iterator[Step]:
    """Give all steps that were done, in any order."""
    for path in (store.path / DIRECTORY).glob("*.json"):
        step = _read(path)
        if step is not None:
            yield step


def forget(store: Store, step: Step) -> None:
    """Remove what is known of a step; its layer stays until gc."""
    _path(store, step.key).unlink(missing_ok=True)


def _path(store: Store, key: str) -> Path:
    return store.path / DIRECTORY / f"{key}.json"


def _read(path: Path) -> Step | None:
    """Return a record; None if there is none."""
    said = load(path)
    if said is None:
        return None
    parent, text, layer, made = (said.get(name) for name in ("parent", "said", "layer", "made"))
    if not all(isinstance(word, str) for word in (parent, text, layer)):
        return None
    return Step(path.stem, str(parent), str(text), str(layer), float(made)) if _is_time(made) else None


def _is_time(made: object) -> TypeGuard[float]:
    """Say whether something is a number of seconds."""
    return isinstance(made, (int, float))
