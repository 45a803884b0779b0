"""One pull for a whole job: a reference becomes a file that all nodes can read, made once, by one process.

The tag is resolved to a digest here, on the submitting side: all ranks run the same image even if the tag
moves meanwhile. The file is named by that digest, in the user's cache, or in the site's (``cache-dir``).
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from chlaunch.errors import RefusedError
from chlaunch.image import published, reference
from chlaunch.image.events import Events
from chlaunch.image.manifest import Source, host_platform
from chlaunch.image.reference import Reference
from chlaunch.launch.options import Settings
from chlaunch.rootfs import storage_directory

# Seconds that others wait who need the same image. Later its maker's node may have died: NFS tells nobody.
DEADLINE = 900


def staged(word: str, settings: Settings, environment: Mapping[str, str]) -> str:
    """Return the path at which nodes have the image file at word, if that was asked for; else word.

    Raises:
        RefusedError: it is no file, or this is no job.
        SlurmError: it can't be copied.

    """
    directory = settings.text("stage")
    if not directory:
        return word
    file = Path(word)
    if not file.is_file():
        raise RefusedError(
            f"--ch-stage takes an image file, and this is none: {word}",
            "ch-convert makes one of a directory or of an image in storage",
        )
    from chlaunch.slurm import staging  # noqa: PLC0415  few launches need it

    return staging.stage(file.absolute(), directory, environment)


def local_image(word: str, settings: Settings, environment: Mapping[str, str], events: Events) -> str:
    """Return the path of a file with the image that word names, or word itself where it names none to fetch.

    What is a path, or the name of an image in storage, is never fetched.

    Raises:
        UsageError: it is no reference.
        RegistryError: the registry has no such image, or can't be asked.
        ImageError: the image is damaged.
        StorageError: there is no place for it.

    """
    storage = storage_directory(settings.text("storage"), environment)
    if not reference.is_remote(word) or _is_here(word, storage):
        return word
    # Python's requests takes 150 ms to load.
    from chlaunch.image.registry import Registry  # noqa: PLC0415

    full = reference.parse(word).complete(environment)
    places = _places(settings, environment, events)
    registry = Registry(full, environment, warn=events.warn)
    digest = full.digest or registry.resolve(full.version)[0]
    name = f"{digest.partition(':')[2]}-{host_platform().architecture}.sqfs"
    for directory, owners in places:
        found = published.find(directory, name, owners)
        if found is not None:
            return str(found)
    mine = next(
        directory for directory, _ in places if os.access(directory, os.W_OK) or directory == places[-1][0]
    )
    published.make_directory(mine)
    return str(
        published.publish(
            mine,
            name,
            lambda path: _make(registry, replace(full, digest=digest), path, events),
            events.say,
            deadline=DEADLINE,
        )
    )


def _is_here(word: str, storage: str) -> bool:
    """Say whether word is a path, or the name of an image in storage."""
    if word.startswith(reference.SCHEME):
        return False
    return os.path.exists(word) or Path(storage, "images", word.replace("/", "%").replace(":", "+")).is_dir()  # noqa: PTH110  a word


def _places(
    settings: Settings, environment: Mapping[str, str], events: Events
) -> list[tuple[Path, frozenset[int]]]:
    """Return the directories to look in, and who may own what is there; the user's own is the last."""
    mine = frozenset((os.geteuid(), 0))
    places = [(published.users_directory(environment), mine)]
    shared = settings.text("cache-dir")
    if shared:
        owner = settings.text("cache-owner")
        owners = mine | ({published.owner_id(owner)} if owner else set())
        why = published.distrust(Path(shared), owners)
        if why:
            events.warn(f"image cache is not used: {why}")
        else:
            places.insert(0, (Path(shared), owners))
    return places


def _make(registry: Source, full: Reference, path: Path, events: Events) -> None:
    """Write an image of a registry into a file.

    Raises:
        ChlaunchError: see local_image().

    """
    raise NotImplementedError
