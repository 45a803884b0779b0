"""What was found in images, kept between launches: to look again takes as long as the rest of a launch.

An entry is taken only for the same image (Rootfs.identity()), command, variables and tables, and only while
the files that decided have their sizes and times. In a directory, a new program that hides the one that was
found, earlier in PATH, is noticed no sooner than the directories that identity() looks at change.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from chlaunch.launch.flavour import Flavour, by_name
from chlaunch.launch.image import Asked, Image, Part
from chlaunch.launch.view import View
from chlaunch.rootfs import Rootfs

# Changes when what is kept, or how it is found, does.
FORMAT = 2

# Some weeks of work; an entry is 1 KiB.
ENTRIES_MAX = 1000


def inspect(
    rootfs: Rootfs, flavours: tuple[Flavour, ...], asked: Asked, environment: Mapping[str, str]
) -> Image:
    """Return what the image holds, from the cache if it can be; see launch.inspect.inspect().

    What a site shows of hosts that have it is taken to be missing where it is missing here.
    """
    shown = tuple((target, source) for target, source in asked.shown if os.path.exists(source))  # noqa: PTH110
    asked = replace(asked, shown=shown)
    directory = _directory(environment)
    if rootfs.unseen or directory is None:
        return _look(rootfs, flavours, asked)
    entry = directory / f"{_key(rootfs, flavours, asked)}.json"
    view = View(rootfs, asked.shown)
    with suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(entry.read_text())
        if all(_stamp(view, path) == stamp for path, stamp in kept["stamps"].items()):
            return _image(kept["image"], flavours)
    found = _look(rootfs, flavours, asked)
    if found.command or not asked.words:  # a command that is missing may be there next time
        with suppress(OSError):
            _keep(entry, view, found)
    return found


def _look(rootfs: Rootfs, flavours: tuple[Flavour, ...], asked: Asked) -> Image:
    """Look into the image."""
    from chlaunch.launch.inspect import inspect  # noqa: PLC0415  10 ms that a warm cache saves

    return inspect(rootfs, flavours, asked)


def _directory(environment: Mapping[str, str]) -> Path | None:
    """Return where entries are kept (XDG base directory specification); None without a home."""
    base, home = environment.get("XDG_CACHE_HOME", ""), environment.get("HOME", "")
    if base.startswith("/"):
        return Path(base, "chlaunch", "images")
    return Path(home, ".cache", "chlaunch", "images") if home.startswith("/") else None


def _key(rootfs: Rootfs, flavours: tuple[Flavour, ...], asked: Asked) -> str:
    """Return the name of the entry for an image and a command."""
    words = asked.words[:1] if asked.words and not asked.words[0].endswith("env") else asked.words
    facts = (
        FORMAT,
        rootfs.path,
        rootfs.storage,
        rootfs.identity(),
        words,
        sorted(asked.variables.items()),
        sorted(asked.said.items()),
        asked.directory,
        asked.shown,
        repr(flavours),
    )
    return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:40]


def _stamp(view: View, path: str) -> str:
    """Return size and times of a file that may change while the image stays; empty for one that can't."""
    rootfs, on = view.there(view.locate(path) or path)
    where = rootfs.locate(on) if not rootfs.storage else None
    if where is None or not os.path.isdir(rootfs.path):  # noqa: PTH112  as fast as can be
        return ""
    status = os.stat(rootfs.path.rstrip("/") + where)  # noqa: PTH116  likewise
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _keep(entry: Path, view: View, image: Image) -> None:
    """Write an entry, whole or not at all, and take away old ones where there are too many."""
    paths = [image.command, *image.files, *(part.path for part in (*image.mpis, *image.parts))]
    stamps = {path: _stamp(view, path) for path in paths if path}
    import tempfile  # noqa: PLC0415  only when there is something new

    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"image": _plain(image), "stamps": stamps})
    with tempfile.TemporaryDirectory(dir=entry.parent) as draft:  # a full disk leaves nothing
        Path(draft, "entry").write_text(text)
        Path(draft, "entry").replace(entry)
    entries = sorted(entry.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for old in entries[:-ENTRIES_MAX]:
        old.unlink(missing_ok=True)


def _plain(image: Image) -> dict[str, Any]:
    """Return an image as JSON has it, flavours by their names."""
    plain: dict[str, Any] = {**vars(image)}
    for field in ("mpis", "parts"):
        plain[field] = [
            {**vars(part), "flavour": part.flavour.name, "features": sorted(part.features)}
            for part in plain[field]
        ]
    return plain


def _image(plain: dict[str, Any], flavours: tuple[Flavour, ...]) -> Image:
    """Return the image that _plain() made plain."""
    parts = {
        field: tuple(
            Part(
                _flavour(part["flavour"], flavours),
                part["version"],
                part["path"],
                frozenset(part["features"]),
            )
            for part in plain[field]
        )
        for field in ("mpis", "parts")
    }
    return Image(**{**plain, **parts, "files": tuple(plain["files"])})


def _flavour(name: str, flavours: tuple[Flavour, ...]) -> Flavour:
    """Return the flavour of that name.

    Raises:
        LookupError: there is none.

    """
    found = by_name(flavours, name)
    if found is None:
        raise LookupError(name)
    return found
