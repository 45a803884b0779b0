"""One pull for a whole job: a reference becomes a file that all nodes can read, made once, by one process.

The tag is resolved to a digest here, on the submitting side: all ranks run the same image even if the tag
moves meanwhile. The file is named by that digest, in the user's cache, or in the site's (``cache-dir``).
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from chlaunch.errors import RefusedError
from chlaunch.image import fetched, published, reference
from chlaunch.image.convert import write_squash
from chlaunch.image.events import Events
from chlaunch.image.finding import Wanted
from chlaunch.image.importing import Importing
from chlaunch.image.manifest import Source
from chlaunch.image.reference import Reference
from chlaunch.image.store import file_name
from chlaunch.image.tools import Tools
from chlaunch.launch.options import Settings
from chlaunch.rootfs import storage_directory

# Seconds that others wait who need the same image. Later its maker's node may have died: NFS tells nobody.
DEADLINE = 900

# Where it is unpacked on the way, if nobody says: /tmp may be in memory.
TEMPORARY = "/var/tmp"  # noqa: S108  that is its purpose


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
    full = reference.parse(word).complete(environment)
    places = _places(settings, environment, events)
    if full.digest and (found := _find(places, full.digest)):
        return found
    # Python's requests takes 150 ms to load.
    from chlaunch.image.registry import Registry  # noqa: PLC0415

    with Registry(full, environment, warn=events.warn) as registry:
        digest = full.digest or registry.resolve(full.version)[0]
        found = _find(places, digest)
        if found:
            return found
        here = next((place for place, _ in places if os.access(place, os.W_OK)), places[-1][0])
        published.make_directory(here)

        def make(path: Path) -> None:
            _make(registry, replace(full, digest=digest), path, environment, events)

        return str(published.publish(here, fetched.file_name(digest), make, events.say, deadline=DEADLINE))


def _find(places: list[tuple[Path, frozenset[int]]], digest: str) -> str:
    """Return the path of an image in one of the caches; empty if it is in none."""
    name = fetched.file_name(digest)
    found = (published.find(directory, name, owners) for directory, owners in places)
    return next((str(path) for path in found if path is not None), "")


def _is_here(word: str, storage: str) -> bool:
    """Say whether word is a path, or the name of an image in storage."""
    if word.startswith(reference.SCHEME):
        return False
    return Path(word).exists() or Path(storage, "images", file_name(word)).is_dir()


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


def _make(
    registry: Source, full: Reference, path: Path, environment: Mapping[str, str], events: Events
) -> None:
    """Write an image of a registry into a file.

    Raises:
        ChlaunchError: see local_image().

    """
    temporary = Path(environment.get("TMPDIR") or TEMPORARY)
    wanted = Wanted(full.name, f"{full.repository}:{full.tag}" if full.tag else full.repository, full.version)
    write_squash(registry, wanted, path, Importing(Tools(environment, events), temporary))
