"""Images from files into storage: archives, directories, image files, layouts.

What is imported is known by its content: the same archive gives the same layer, a changed one another.
"""

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

from chlaunch.errors import ChlaunchError, ImageError
from chlaunch.image import flatten, formats, roots, top
from chlaunch.image.archive import open_archive
from chlaunch.image.events import Events
from chlaunch.image.finding import Wanted
from chlaunch.image.formats import DIRECTORY, SIF, SQUASH, TAR, Place
from chlaunch.image.manifest import Platform, host_platform, parse_config
from chlaunch.image.metadata import config_of, read_metadata
from chlaunch.image.pack import pack
from chlaunch.image.pull import full, pull
from chlaunch.image.records import SINGLE, Layer, Record, StoredImage
from chlaunch.image.roots import Counted, Root
from chlaunch.image.store import Store
from chlaunch.image.tools import Tools
from chlaunch.image.unpack import Limits, Unpacked, unpack
from chlaunch.rootfs import Rootfs

# Bytes of a file's name, if it is Latin; more than those of archives have.
NAME_MOST = 60


@dataclass(frozen=True)
class Importing:
    """How to import. platform: what is wanted, or what an image is for that does not tell; None for any.

    temporary: a directory for what is needed on the way. origin: where a path's content came from; empty if
    that is the path itself.
    """

    tools: Tools
    temporary: Path
    platform: Platform | None = field(default_factory=host_platform)
    limits: Limits = field(default_factory=Limits)
    xattrs: bool = True
    origin: str = ""

    @property
    def events(self) -> Events:
        """Return who is told."""
        return self.tools.events


def import_place(store: Store, place: Place, name: str, importing: Importing) -> StoredImage:
    """Return the image that a path is, in storage under a name.

    Raises:
        ImageError: it is none, or is damaged or hostile.
        StorageError: storage is full or can't be written.

    """
    if place.format.layered:
        with open_archive(place.path, importing.temporary) as source:
            shown = importing.origin or place.word
            wanted = Wanted(name, shown, place.tag, importing.platform, limits=importing.limits)
            return pull(store, source, wanted, importing.events)
    try:
        with store.using(importing.events.say, f"importing {name}"), store.work() as work:
            return _import_tree(store, place, name, work, importing)
    except OSError as error:
        raise full(error, store.path) from error


def import_path(
    store: Store, path: str, name: str, importing: Importing, environment: Mapping[str, str]
) -> StoredImage:
    """Return the image at a path, whatever it is, in storage under a name; see import_place().

    Raises:
        ImageError: it is no image.

    """
    place = formats.input_place(path, "", environment)
    if not place.format.is_path:  # a path without a slash, whose name tells nothing
        place = formats.input_place(os.path.abspath(path), "", environment)  # noqa: PTH100  pathlib does not
    if place.format.name == DIRECTORY and place.path.is_file():
        place = formats.input_place(path, TAR, environment)
    return import_place(store, place, name, importing)


def import_url(
    store: Store, url: str, name: str, importing: Importing, *, verify: bool = True
) -> StoredImage:
    """Return the image that a URL names, in storage under a name; see import_path() and urls.fetch_url().

    Raises:
        UsageError: it is no URL of a file.
        RegistryError: the server does not give it.

    """
    # Python's requests takes 150 ms to load.
    from chlaunch.image import urls  # noqa: PLC0415

    environment = importing.tools.environment
    with tempfile.TemporaryDirectory(prefix="ch-image-", dir=importing.temporary) as directory:
        path = Path(directory) / urls.file_name(url)[:NAME_MOST]
        urls.fetch_url(url, path, urls.Fetching(environment, importing.events, verify))
        return import_path(store, str(path), name, replace(importing, origin=url), environment)


def _import_tree(store: Store, place: Place, name: str, work: Path, importing: Importing) -> StoredImage:
    """Return an image of one layer."""
    tree = work / "tree"
    if place.format.name == TAR:
        unpacked = roots.from_tar(place.path, tree, importing.limits, importing.events)
        if not importing.xattrs:
            roots.drop_attributes(tree)
        plain = "" if importing.xattrs else "-plain"
        key, diff_id = f"import-{unpacked.diff_id.partition(':')[2]}{plain}", ""
    else:
        unpacked = _copied(_directory(place, work, importing), tree, importing)
        diff_id = unpacked.diff_id
        key = f"layer-{diff_id.partition(':')[2]}"
    layer = Layer(key, "", diff_id, unpacked.size, unpacked.members, dict(unpacked.dropped))
    (work / "trial").mkdir()
    if flatten.refusal(work / "trial"):
        top.complete(tree)
        layer = replace(layer, key=f"{SINGLE}-{key}", diff_id="")
    said = read_metadata(Rootfs(str(tree)), place.word, importing.platform or host_platform())
    config = config_of(said, [layer.diff_id] if layer.diff_id else [])
    layer = store.add_layer(tree, layer)
    ours = top.make(store, work / "top", parse_config(config, place.word), [store.tree(layer)])
    record = Record(
        importing.origin or str(place.path), "", str(said.platform), time.time(), (layer.key,), ours.key
    )
    return store.add_image(name, record, [layer, ours], config, b"")


def _directory(place: Place, work: Path, importing: Importing) -> Path:
    """Return a directory with what is to be imported."""
    found = work / "found"
    if place.format.name in (SQUASH, SIF):
        roots.from_squash(place.path, found, importing.tools, xattrs=importing.xattrs)
        return found
    if not roots.is_image(place.path):
        raise ImageError(
            f"not an image: {place.path}", f"an image is a directory with {', '.join(roots.MARKS)} in it"
        )
    if importing.xattrs:
        return place.path
    roots.copy_tree(Root(place.path), found, importing.tools, xattrs=False)
    return found


def _copied(directory: Path, tree: Path, importing: Importing) -> Unpacked:
    """Copy a directory as a layer would have it, by way of an archive of it that nobody keeps."""
    tree.mkdir(mode=0o755)
    source, target = os.pipe()
    failures: list[ChlaunchError] = []

    def send() -> None:
        with os.fdopen(target, "wb") as stream:
            try:
                pack(directory, stream)
            except ChlaunchError as error:
                if not isinstance(error.__cause__, BrokenPipeError):  # who reads has given up, and says why
                    failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with (
            os.fdopen(source, "rb") as stream,
            importing.events.track(f"copying {directory}", 0) as progress,
        ):
            counted = cast("BinaryIO", Counted(stream, progress))
            return unpack(counted, tree, importing.limits, overlay=True, shown=str(directory))
    except ImageError as error:
        if failures:  # what was unpacked was cut off for that
            raise failures[0] from error
        raise
    finally:
        sender.join()
