r"""From one format of images to another, by the shortest way.

====================  ==============================  ==========================  ====================
from \\ to             dir, tar, squash                ch-image                    layouts and archives
====================  ==============================  ==========================  ====================
dir                   its files as they are           a layer of them             a layer of them
tar, squash, sif      unpacked beside the output      a layer of what is in it    likewise
                      or in --tmp, then as dir
ch-image              its layers, mounted             (a copy has no use)         as it was pulled
layouts and archives  layers unpacked one upon        as if pulled                blob by blob
                      another, then as dir
====================  ==============================  ==========================  ====================

Layouts and archives have layers and a configuration: oci, oci-archive, docker-archive; and docker and podman,
which save and load the last.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chlaunch.errors import ImageError, UsageError
from chlaunch.image import archive, layout, products, roots, scratch, top
from chlaunch.image.archive import DockerArchive, DockerArchiveSink, open_archive
from chlaunch.image.finding import Wanted, find
from chlaunch.image.formats import (
    DIRECTORY,
    DOCKER_ARCHIVE,
    IMAGE,
    OCI,
    OCI_ARCHIVE,
    SQUASH,
    TAR,
    Place,
)
from chlaunch.image.importing import Importing, import_place
from chlaunch.image.layout import Layout, LayoutSink
from chlaunch.image.manifest import Source, host_platform
from chlaunch.image.pull import fetch_blob, pull
from chlaunch.image.push import Goal, push
from chlaunch.image.records import StoredImage
from chlaunch.image.reference import DEFAULT_TAG
from chlaunch.image.roots import Root
from chlaunch.image.store import Store


@dataclass(frozen=True)
class Conversion:
    """What is to be converted, and how. store: opens the storage, when it is needed.

    clobber: what is at the target may go.
    """

    source: Place
    target: Place
    importing: Importing
    store: Callable[[], Store]
    clobber: bool = True


def convert(conversion: Conversion) -> None:
    """Convert an image. What is at the target stays until the new image is whole.

    Raises:
        ChlaunchError: UsageError, ImageError or StorageError.

    """
    check(conversion)
    try:
        with scratch.directory(conversion.importing.temporary) as work:
            if conversion.target.format.name == IMAGE:
                _to_storage(conversion, work)
            elif conversion.target.format.layered:
                _to_sink(conversion, work)
            else:
                _to_file(conversion, work)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ImageError(
            f"can't convert to {conversion.target}: {error.filename or 'output'}: {error.strerror}",
            "make room there, or choose another place" if full else "",
        ) from error


def check(conversion: Conversion) -> None:
    """See that an image can be converted, as far as can be told without reading it.

    Raises:
        UsageError: the words make no sense.
        ImageError: there is nothing at the source, or the target may not be written.

    """
    source, target = conversion.source, conversion.target
    if source.format.is_path and not os.path.lexists(source.path):
        raise ImageError(f"not found: {source.word}", "give a path, or its format with --in-fmt")
    if source.format.name == DIRECTORY:
        if not source.path.is_dir():
            raise ImageError(f"not a directory: {source.word}", "name its format with --in-fmt")
        if target.format.is_path and target.path.is_relative_to(source.path):
            raise UsageError(f"output is within the input: {target.word}", "choose another place for it")
    if source.format.name == target.format.name == IMAGE:
        raise UsageError("both are in ch-image's storage", "pull or import it under the other name")
    if target.format.name == TAR:
        products.compressing(target.path.name, conversion.importing.tools)
    if target.format.is_path:
        directory = target.format.name in (DIRECTORY, OCI)
        holds = _is_layout if target.format.name == OCI else roots.is_image
        products.check_output(target.path, directory=directory, clobber=conversion.clobber, holds=holds)
    elif not conversion.clobber and _is_there(conversion):
        raise ImageError(f"exists, not deleting per --no-clobber: {target.name}", "choose another name")


def write_squash(source: Source, wanted: Wanted, path: Path, importing: Importing) -> None:
    """Write an image of a source, as it is in a registry, to a SquashFS file.

    Raises:
        ChlaunchError: ImageError, or what the source raises.

    """
    with scratch.directory(importing.temporary) as work:
        roots.from_source(source, wanted, work / "root", importing.events)
        top.complete(work / "root")
        products.write_squash(
            Root(work / "root"), path, importing.tools, xattrs=importing.xattrs, shown=f"{wanted.name}.sqfs"
        )


def _to_storage(conversion: Conversion, work: Path) -> None:
    """Put the source into storage."""
    source, importing, store = conversion.source, conversion.importing, conversion.store()
    if source.format.layered:
        with _opened(conversion, work) as found:
            pull(store, found, _wanted(conversion), importing.events)
    else:
        import_place(store, source, conversion.target.name, importing)


def _to_sink(conversion: Conversion, work: Path) -> None:
    """Put the source's layers and configuration into a layout or archive."""
    source, target, importing = conversion.source, conversion.target, conversion.importing
    what = target.name or target.tag or _default_name(conversion)
    with _sink(conversion, work) as sink:
        if source.format.name == IMAGE:
            store = conversion.store()
            push(store, _stored(store, source), Goal(sink, what), importing.events)
            return
        if source.format.layered:
            with _opened(conversion, work) as found:
                _copy(found, sink, what, conversion, work)
            return
        directory = work / "root"
        if source.format.name != DIRECTORY:
            _extract(conversion, directory)
        elif importing.xattrs:
            directory = source.path
        else:
            roots.copy_tree(Root(source.path), directory, importing.tools, xattrs=False)
        compressed = target.format.name in (OCI, OCI_ARCHIVE)
        manifest, blobs = products.make_layer(
            directory,
            work,
            importing.events,
            compressed=compressed,
            platform=importing.platform or host_platform(),
        )
        for blob, path in blobs:
            sink.put_blob(blob, path, lambda _: None)
        sink.put_manifest(what, manifest.raw, manifest.media_type)


def _to_file(conversion: Conversion, work: Path) -> None:
    """Make an archive, a SquashFS file or a directory of what is in the source."""
    target, importing = conversion.target, conversion.importing
    if target.format.name != DIRECTORY:
        write = {TAR: products.write_tar, SQUASH: products.write_squash}[target.format.name]
        with _root(conversion, work) as root:
            write(root, target.path, importing.tools, xattrs=importing.xattrs)
        return
    with products.new_directory(target.path) as new:
        if conversion.source.format.name in (DIRECTORY, IMAGE):
            with _root(conversion, work) as root:
                roots.copy_tree(root, new, importing.tools, xattrs=importing.xattrs)
            roots.make_ours(new)
        else:
            _extract(conversion, new)


@contextmanager
def _root(conversion: Conversion, work: Path) -> Iterator[Root]:
    """Give the source as a directory."""
    source = conversion.source
    if source.format.name == DIRECTORY:
        if not roots.is_image(source.path):
            conversion.importing.events.warn(f"does not look like an image: {source.word}")
        yield Root(source.path)
    elif source.format.name == IMAGE:
        store = conversion.store()
        with roots.mounted(store, _stored(store, source), work, conversion.importing.tools) as root:
            yield root
    else:
        _extract(conversion, work / "root")
        yield Root(work / "root")


def _extract(conversion: Conversion, directory: Path) -> None:
    """Unpack the source into a directory that is not there yet."""
    source, importing = conversion.source, conversion.importing
    if source.format.layered:
        work = directory.with_name(f"{directory.name}.archive")
        work.mkdir()
        with _opened(conversion, work) as found:
            roots.from_source(found, _wanted(conversion), directory, importing.events)
    elif source.format.name == TAR:
        roots.from_tar(source.path, directory, importing.limits, importing.events)
    else:
        roots.from_squash(source.path, directory, importing.tools, xattrs=importing.xattrs)
    if not importing.xattrs:
        roots.drop_attributes(directory)
    top.complete(directory)


@contextmanager
def _opened(conversion: Conversion, work: Path) -> Iterator[Layout | DockerArchive]:
    """Give the layout or archive that the source is, or was saved to."""
    source, importing = conversion.source, conversion.importing
    path = source.path
    if source.format.program:
        path = work / "saved"
        with importing.events.track(f"{source.format.program} save", 0) as progress:
            importing.tools.run((source.format.program, "save", "--output", str(path), source.name))
            progress(path.stat().st_size)
    with open_archive(path, work) as found:
        yield found


@contextmanager
def _sink(conversion: Conversion, work: Path) -> Iterator[LayoutSink | DockerArchiveSink]:
    """Give a sink, which becomes the target at the end."""
    target, tools = conversion.target, conversion.importing.tools
    if target.format.name == OCI and target.path.is_dir():
        with layout.write_directory(target.path) as sink:
            yield sink
    elif target.format.name == OCI:
        with products.new_directory(target.path) as new:
            new.mkdir(mode=0o755)
            with layout.write_directory(new) as sink:
                yield sink
    elif target.format.name == OCI_ARCHIVE:
        with (
            products.new_file(target.path) as path,
            path.open("w+b") as file,
            layout.write_archive(file) as sink,
        ):
            yield sink
    elif target.format.name == DOCKER_ARCHIVE:
        with (
            products.new_file(target.path) as path,
            path.open("w+b") as file,
            archive.write_archive(file) as docker,
        ):
            yield docker
    else:
        with (work / "load").open("w+b") as file, archive.write_archive(file) as docker:
            yield docker
        tools.run((target.format.program, "load", "--input", str(work / "load")))


def _copy(
    source: Source, sink: LayoutSink | DockerArchiveSink, what: str, conversion: Conversion, work: Path
) -> None:
    """Copy an image blob by blob."""
    events = conversion.importing.events
    found = find(source, _wanted(conversion))
    for blob in (found.manifest.config, *found.manifest.layers):
        if not sink.has_blob(blob):
            with events.track(f"blob {blob.digest.partition(':')[2][:12]}", blob.size) as progress:
                fetch_blob(source, blob, work / "blob", progress)
            sink.put_blob(blob, work / "blob", lambda _: None)
    sink.put_manifest(what, found.manifest.raw, found.manifest.media_type)


def _wanted(conversion: Conversion) -> Wanted:
    """Return which image of the source is meant."""
    source, importing = conversion.source, conversion.importing
    return Wanted(
        name=conversion.target.name,
        reference=source.word,
        what=source.tag,
        platform=importing.platform,
        limits=importing.limits,
    )


def _stored(store: Store, place: Place) -> StoredImage:
    """Return an image in storage.

    Raises:
        ImageError: there is none of that name.

    """
    image = store.image(place.name)
    if image is None:
        hint = f"it is a path: write ./{place.word}" if Path(place.word).exists() else "ch-image list"
        raise ImageError(f"image not in storage: {place.word}", hint)
    return image


def _default_name(conversion: Conversion) -> str:
    """Return what an image is called in a layout or archive if nobody says."""
    if conversion.target.format.name == DOCKER_ARCHIVE:
        return conversion.source.name
    return DEFAULT_TAG


def _is_layout(directory: Path) -> bool:
    """Say whether a directory holds an OCI layout."""
    return (directory / layout.MARK).is_file() and (directory / layout.INDEX).is_file()


def _is_there(conversion: Conversion) -> bool:
    """Say whether there is an image of the target's name."""
    target = conversion.target
    if target.format.name == IMAGE:
        return conversion.store().image(target.name) is not None
    return conversion.importing.tools.succeeds((target.format.program, "image", "inspect", target.name))
