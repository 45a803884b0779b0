"""What was built before: for each key of a step, the layer that came of it.

A record is one small file in the storage's ``cache``; a step that has one touches no file of an image.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chlaunch.image.store import Layer, Store, load


@dataclass(frozen=True)
class Step:
    """A step that was done. parent: the key of the state it started from. made: seconds since 1970."""

    key: str
    parent: str
    said: str
    layer: str
    made: float


def find(store: Store, key: str) -> tuple[Step, Layer | None] | None:
    """Return what came of a step, and its layer if it has one; None if it was not done, or that has gone."""
    step = _read(_path(store, key))
    if step is None:
        return None
    layer = store.layer(step.layer) if step.layer else None
    return None if step.layer and layer is None else (step, layer)


def remember(store: Store, step: Step) -> None:
    """Keep what came of a step."""
    said = {"parent": step.parent, "said": step.said, "layer": step.layer, "made": step.made}
    store.write(_path(store, step.key), json.dumps(said).encode())


def all_steps(store: Store) -> Iterator[Step]:
    """Give all steps that were done, in any order."""
    for path in (store.path / "cache").glob("*.json"):
        step = _read(path)
        if step is not None:
            yield step


def forget(store: Store, step: Step) -> None:
    """Remove what is known of a step; its layer stays until gc."""
    _path(store, step.key).unlink(missing_ok=True)


def _path(store: Store, key: str) -> Path:
    return store.path / "cache" / f"{key}.json"


def _read(path: Path) -> Step | None:
    """Return a record; None if there is none."""
    said = load(path)
    try:
        return (
            None
            if said is None
            else Step(path.stem, said["parent"], said["said"], said["layer"], said["made"])
        )
    except KeyError:
        return None
