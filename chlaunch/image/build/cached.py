"""The cache of builds, for people: which steps there are, what hangs on what, and how to make it smaller."""

from collections.abc import Iterator, Mapping
from typing import Any

from chlaunch.image.build import steps
from chlaunch.image.locks import Say
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store

SHOWN_MOST = 60


def summary(store: Store) -> Mapping[str, Any]:
    """Return numbers of steps, of those that images have, of layers, and their bytes."""
    known = list(steps.all_steps(store))
    used = _used(store)
    layers = {step.layer for step in known if step.layer}
    sizes = [layer.size for key in layers if (layer := store.layer(key)) is not None]
    return {
        "steps": len(known),
        "of images": sum(step.layer in used for step in known),
        "layers": len(sizes),
        "bytes": sum(sizes),
    }


def tree(store: Store) -> Iterator[str]:
    """Give a line for each step, below the one that it follows."""
    below: dict[str, list[steps.Step]] = {}
    for step in sorted(steps.all_steps(store), key=lambda step: step.made):
        below.setdefault(step.parent, []).append(step)
    known = {step.key for rows in below.values() for step in rows}
    used = _used(store)
    todo = [(step, 0) for parent, rows in below.items() if parent not in known for step in rows][::-1]
    while todo:
        step, depth = todo.pop()
        sign = "*" if step.layer in used else " "
        yield f"{sign} {'  ' * depth}{step.key[:8]} {' '.join(step.said.split())[:SHOWN_MOST]}"
        todo += [(child, depth + 1) for child in reversed(below.get(step.key, []))]


def dot(store: Store) -> str:
    """Return the same as a graph, in Graphviz's language."""
    lines = ["digraph cache {", "  node [shape=box, fontname=monospace];"]
    for step in steps.all_steps(store):
        said = " ".join(step.said.split())[:SHOWN_MOST].replace("\\", "\\\\").replace('"', '\\"')
        lines += [f'  "{step.key[:8]}" [label="{said}"];', f'  "{step.parent[:8]}" -> "{step.key[:8]}";']
    return "\n".join([*lines, "}", ""])


def reset(store: Store) -> None:
    """Forget all steps, and what RUN's caches hold."""
    for step in list(steps.all_steps(store)):
        steps.forget(store, step)
    remove_tree(store.path / "cache")
    (store.path / "cache").mkdir()


def thin(store: Store, say: Say) -> int:
    """Forget steps whose layers no image has; return how many they were."""
    used = _used(store)
    gone = [step for step in steps.all_steps(store) if step.layer and step.layer not in used]
    with store.using(say, "thinning out the build cache", alone=True):
        for step in gone:
            steps.forget(store, step)
    return len(gone)


def _used(store: Store) -> set[str]:
    """Return the keys of layers that images have."""
    return {layer.key for image in store.images() for layer in image.layers}
