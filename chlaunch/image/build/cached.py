"""The cache of builds, for people: which steps there are, what hangs on what, and how to make it smaller."""

from collections.abc import Iterator, Mapping
from typing import Any

from chlaunch.image.build import steps
from chlaunch.image.locks import Say
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store

SHOWN_MOST = 60


def summary(store: Store) -> Mapping[str, Any]:
    """Return how many steps there are, and layers; and the bytes of these and of RUN's caches."""
    known = list(steps.all_steps(store))
    used = _used(store)
    sizes = {step.layer: _size(store, step) for step in known if step.layer}
    return {
        "steps": len(known),
        "of images": sum(step.layer in used for step in known),
        "layers": len(sizes),
        "bytes": sum(sizes.values()),
        "bytes of caches": sum(
            path.lstat().st_size for path in (store.path / steps.MOUNTS).rglob("*") if not path.is_dir()
        ),
    }


def tree(store: Store) -> Iterator[str]:
    """Give a line for each step, below the one that it follows: what images have with a star, size, key."""
    below: dict[str, list[steps.Step]] = {}
    for step in sorted(steps.all_steps(store), key=lambda step: step.made):
        below.setdefault(step.parent, []).append(step)
    known = {step.layer for rows in below.values() for step in rows if step.layer}
    used = _used(store)
    todo = [(step, 0) for parent, rows in below.items() if parent not in known for step in rows][::-1]
    while todo:
        step, depth = todo.pop()
        sign = "*" if step.layer in used else " "
        size = f"{_size(store, step) / (1 << 20):8.1f} MiB"
        yield f"{sign} {size} {step.key[:8]} {'  ' * depth}{_said(step)}"
        todo += [(child, depth + 1) for child in reversed(below.get(step.layer, []))]


def dot(store: Store) -> str:
    """Return the same as a graph, in Graphviz's language."""
    lines = ["digraph cache {", "  node [shape=box, fontname=monospace];"]
    known = list(steps.all_steps(store))
    of_layer = {step.layer: step.key for step in known if step.layer}
    for step in known:
        said = _said(step).replace("\\", "\\\\").replace('"', '\\"')
        parent = of_layer.get(step.parent, step.parent)
        lines += [f'  "{step.key[:8]}" [label="{said}"];', f'  "{parent[:8]}" -> "{step.key[:8]}";']
    return "\n".join([*lines, "}", ""])


def reset(store: Store, say: Say) -> None:
    """Forget all steps, and what RUN's caches hold. Waits for builds."""
    with store.using(say, "emptying the build cache", alone=True):
        for path in (store.path / steps.DIRECTORY).iterdir():
            remove_tree(path)


def thin(store: Store, say: Say) -> int:
    """Forget steps whose layers no image has; return how many they were. Waits for builds."""
    with store.using(say, "thinning out the build cache", alone=True):
        used = _used(store)
        known = list(steps.all_steps(store))
        layers = {step.layer for step in known} - {""}
        # What changed nothing is kept with what it follows, which may be an image of a registry.
        gone = [step for step in known if (step.layer or step.parent) not in used]
        gone = [step for step in gone if step.layer or step.parent in layers]
        for step in gone:
            steps.forget(store, step)
        return len(gone)


def _used(store: Store) -> set[str]:
    """Return the keys of layers that images have."""
    return {layer.key for image in store.images() for layer in image.layers}


def _size(store: Store, step: steps.Step) -> int:
    """Return the bytes of a step's layer; 0 if it has none."""
    layer = store.layer(step.layer) if step.layer else None
    return layer.size if layer is not None else 0


def _said(step: steps.Step) -> str:
    """Return the beginning of an instruction."""
    return " ".join(step.said.split())[:SHOWN_MOST]
