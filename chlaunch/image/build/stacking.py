"""Keep stacks of layers low: the kernel takes 500, and looks for each name in one after the other.

The upper layers become one that says the same, in overlay form. Its files are hard links to theirs, so it
costs names and no content. No layer is changed after it was made, and the merged ones stay what they are.
"""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chlaunch.image import top
from chlaunch.image.below import copy_attributes, copy_content
from chlaunch.image.build import steps
from chlaunch.image.build.state import State, derived, now
from chlaunch.image.build.steps import Step
from chlaunch.image.inside import FLAGS
from chlaunch.image.members import OPAQUE_ATTRIBUTE
from chlaunch.image.records import SINGLE, Layer
from chlaunch.image.removal import remove_at
from chlaunch.image.store import Store
from chlaunch.trees import is_whiteout

# Layers that a step may start from, and how many of them stay as they are when there are as many.
LAYERS_MOST = 80
LAYERS_KEPT = 40

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def lowered(store: Store, state: State, *, remember: bool) -> State:
    """Return a state of the same content whose layers are few. remember: for the next build.

    Raises:
        OSError: the merged layer can't be written.

    """
    if len(state.layers) < LAYERS_MOST:
        return state
    merged = state.layers[LAYERS_KEPT:]
    key = _key(merged)
    layer = store.layer(f"merged-{key}") or _merged(store, merged, f"merged-{key}")
    if remember:
        steps.remember(store, Step(key, state.key, f"({len(merged)} layers)", layer.key, now(None)))
    return state.merged(layer, len(merged))


def single(store: Store, state: State) -> State:
    """Return a state of the same content that has one layer.

    Raises:
        OSError: the merged layer can't be written.

    """
    key = f"{SINGLE}-{_key(state.layers)}"
    layer = store.layer(key) or _merged(store, state.layers, key)
    return state.merged(layer, len(state.layers))


def _key(layers: Sequence[Layer]) -> str:
    return derived("merged", [layer.key for layer in layers])


def _merged(store: Store, layers: Sequence[Layer], key: str) -> Layer:
    """Make a layer of several, and return it."""
    with store.work() as work:
        tree = work / "layer"
        tree.mkdir(mode=0o755)
        size, members = sum(part.size for part in layers), sum(part.members for part in layers)
        merged = Layer(key, "", "", size, members)
        for part in layers:
            _put(store.tree(part), tree, marks=not merged.is_single)
        if merged.is_single:
            top.complete(tree)
        return store.add_layer(tree, merged)


def _put(layer: Path, tree: Path, *, marks: bool) -> None:
    """Put a layer on a tree, as overlayfs would show both. marks: for what will be below them."""
    source, target = os.open(layer, FLAGS), os.open(tree, FLAGS)
    try:
        _merge(source, target, marks=marks)
    finally:
        os.close(source)
        os.close(target)


def _merge(source: int, target: int, *, marks: bool) -> None:
    """Put what is in a directory into another, and make that look like it."""
    if _is_opaque(source):
        for name in os.listdir(target):
            remove_at(target, os.fsencode(name))
        if marks:
            os.setxattr(target, OPAQUE_ATTRIBUTE, b"y")
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        there = _status(name, target)
        if there is not None and not (stat.S_ISDIR(there.st_mode) and stat.S_ISDIR(status.st_mode)):
            remove_at(target, os.fsencode(name))
        if stat.S_ISDIR(status.st_mode):
            _merge_directory(name, source, target, there, marks=marks)
        elif not is_whiteout(status):
            _link(name, source, target, status)
        elif marks:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)
    status = os.fstat(source)
    copy_attributes(source, target)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _merge_directory(
    name: str, source: int, target: int, there: os.stat_result | None, *, marks: bool
) -> None:
    """Merge a directory. there: what the target has of that name."""
    is_new = there is None or not stat.S_ISDIR(there.st_mode)
    if is_new:
        os.mkdir(name, 0o700, dir_fd=target)
    inner, outer = os.open(name, FLAGS, dir_fd=source), os.open(name, FLAGS, dir_fd=target)
    try:
        if is_new and there is not None and marks:  # what is below that must not show through
            os.setxattr(outer, OPAQUE_ATTRIBUTE, b"y")
        _merge(inner, outer, marks=marks)
    finally:
        os.close(inner)
        os.close(outer)


def _link(name: str, source: int, target: int, status: os.stat_result) -> None:
    """Have a file under the same name in another directory."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK or not stat.S_ISREG(status.st_mode):
            raise
        original = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        copy = os.open(name, NEW, 0o600, dir_fd=target)
        try:
            copy_content(original, copy, status.st_size)
            copy_attributes(original, copy)
            os.fchmod(copy, stat.S_IMODE(status.st_mode))
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(original)
            os.close(copy)


def _status(name: str, directory: int) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    return None


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False
