"""The layer that ch-image puts on top of an image: what ch-run wants to find there, and nothing else.

``/ch`` has the image's variables and its command (ch-run(1)); directories that containers need are made where
the image has none. It is never pushed.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from chlaunch.image.manifest import Config
from chlaunch.image.metadata import metadata_files
from chlaunch.image.records import Layer
from chlaunch.image.removal import remove_tree
from chlaunch.image.store import Store
from chlaunch.trees import Directory, Stack

# Mount points, and where programs expect to write. The last two become files: ch-run binds the host's there.
DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "mnt": 0o755,
    "proc": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
}
FILES = ("etc/hosts", "etc/resolv.conf")


def make(store: Store, tree: Path, config: Config, below: Sequence[Path]) -> Layer:
    """Return the layer for an image whose layers' trees are given, the lowest first. tree: not there yet."""
    stack = Stack("", tuple(Directory(str(path)) for path in reversed(below)))
    own = bool(config.said.get("config"))
    files = {
        name: content
        for name, content in metadata_files(config).items()
        # Charliecloud pushes images whose configuration is empty, with these files among the others.
        if own or stack.mode(tuple(name.split("/"))) is None
    }
    missing = [name for name in DIRECTORIES if stack.mode((name,)) is None]
    empty = [name for name in FILES if stack.mode(tuple(name.split("/"))) is None]
    said = json.dumps(
        [missing, empty, {name: content.hex() for name, content in files.items()}], sort_keys=True
    )
    key = f"top-{hashlib.sha256(said.encode()).hexdigest()}"
    known = store.layer(key)
    if known is not None:
        return known
    tree.mkdir(mode=0o755)
    for name in missing:
        (tree / name).mkdir()
        (tree / name).chmod(DIRECTORIES[name])
    for name, content in {**dict.fromkeys(empty, b""), **files}.items():
        path = tree / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.parent.chmod(stat.S_IMODE(stack.mode((name.partition("/")[0],)) or 0o755))
        path.write_bytes(content)
        path.chmod(0o644)
    return store.add_layer(tree, Layer(key, "", size=sum(map(len, files.values())), members=len(files)))


def complete(directory: Path) -> None:
    """Make what containers need and an unpacked image lacks; through links nothing is made."""
    for name, mode in DIRECTORIES.items():
        path = directory / name
        if not os.path.lexists(path):
            path.mkdir()
            path.chmod(mode)
    write_files(directory, {name: b"" for name in FILES if not os.path.lexists(directory / name)})


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into an unpacked image, in place of what is there, directories and links included."""
    for name, content in files.items():
        path = directory / name
        if path.parent.is_symlink() and name in FILES:
            continue  # of the image's own making
        if path.parent.is_symlink() or not path.parent.is_dir():
            path.parent.unlink(missing_ok=True)
            path.parent.mkdir(mode=0o755)
        remove_tree(path)
        with path.open("xb") as file:
            file.write(content)
        path.chmod(0o644)
