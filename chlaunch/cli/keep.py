"""ch-image's subcommands that need no network: what is in storage, and how it comes and leaves."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chlaunch.cli.asked import Asked, limits_of, name_in_storage
from chlaunch.cli.progress import size
from chlaunch.image import fetched, keeping, published, reference
from chlaunch.image.store import Store
from chlaunch.rootfs import storage_directory

# Where temporary files are if nobody says: /tmp may be in memory.
TEMPORARY = "/var/tmp"  # noqa: S108  that is its purpose


def delete(asked: Asked) -> int:
    """Delete images."""
    store = asked.store()
    for name in keeping.delete(store, asked.given["globs"], asked.events.say):
        asked.events.say(f"deleted: {name} (until ch-image gc: ch-image undelete {name})")
    return 0


def undelete(asked: Asked) -> int:
    """Bring one back."""
    keeping.undelete(asked.store(), asked.given["image"], asked.events.say)
    return 0


def collect(asked: Asked) -> int:
    """Remove what no image needs, and fetched images that no launch has used for long."""
    store = asked.store_if_any()
    freed = 0 if store is None else keeping.collect(store, asked.events.say)
    asked.events.say(f"removed {size(freed)}")
    cache, days = _cache(asked), asked.given["unused_days"]
    freed = fetched.thin(cache, days, asked.events.say)
    if freed:
        asked.events.say(f"removed {size(freed)} of {cache}, not used for {days} days")
    return 0


def reset(asked: Asked) -> int:
    """Remove everything."""
    store = asked.store_if_any()
    if store is not None:
        keeping.reset(store, asked.events.say)
    return 0


def room(asked: Asked) -> int:
    """Say what storage takes."""
    store = asked.store()
    took = keeping.room(store)
    cache = _cache(asked)
    cached = sum(row.size for row in fetched.kept(cache))
    if asked.given["json"]:
        said = {"storage": str(store.path), **asdict(took), "cache": str(cache), "fetched": cached}
        click.echo(json.dumps(said))
        return 0
    for words, count in (
        ("layers of images", took.layers),
        ("archives of layers", took.blobs),
        ("layers of deleted images alone", took.deleted),
        ("what gc would remove besides", took.idle),
        ("free on that file system", took.free),
        (f"images that launches have fetched: {cache}", cached),
    ):
        click.echo(f"{size(count):>10}  {words}")
    return 0


def show(asked: Asked) -> int:
    """List images, or say what is known of one."""
    store = asked.store_if_any()
    if asked.given["image"]:
        return _show_one(asked, store)
    if store is None:
        if asked.given["json"]:
            click.echo("[]")
        return 0
    area = "deleted" if asked.given["undeletable"] else "images"
    uses = keeping.usage(store, area)
    for name in sorted({*store.names(area)} - {use.image.name for use in uses}):
        asked.events.warn(f"image is damaged: {name}: pull, import or build it again, or delete it")
    if asked.given["json"]:
        click.echo(json.dumps([_row(use) for use in uses]))
    elif asked.given["long"]:
        for use in uses:
            record = use.image.record
            click.echo(
                f"{size(use.size):>10} {size(use.own):>10} own  {record.platform:<10} "
                f"{_age(record.made):>8}  {use.image.name}"
            )
    else:
        for use in uses:
            click.echo(use.image.name)
    return 0


def gestalt(asked: Asked) -> int:
    """Say something about ourselves."""
    what = asked.given["what"]
    if what == "storage-path":
        click.echo(storage_directory(asked.given["storage"] or "", asked.environment))
    elif what == "python-path":
        click.echo(sys.executable)
    elif what == "dependencies":
        click.echo("all there")
    return 0


def import_image(asked: Asked) -> int:
    """Import an image."""
    given, environment = asked.given, asked.environment
    # The programs that read some of them are looked for, and so on: only here.
    from chlaunch.image import importing  # noqa: PLC0415
    from chlaunch.image.tools import Tools  # noqa: PLC0415

    platform = asked.platform()
    how = importing.Importing(
        Tools(environment, asked.events, verbose=bool(given["verbose"])),
        Path(environment.get("TMPDIR") or TEMPORARY).absolute(),
        platform,
        limits_of(asked),
    )
    what = (asked.store(), given["path"], name_in_storage(str(reference.parse(given["image"])), platform))
    if given["path"].lower().startswith(("http://", "https://")):
        image = importing.import_url(*what, how, verify=not given["tls_no_verify"])
    else:
        image = importing.import_path(*what, how, environment)
    asked.events.say(f"imported: {image.name}")
    asked.result({"name": image.name, "platform": image.record.platform})
    return 0


def _cache(asked: Asked) -> Path:
    """Return where launches have the images that they fetch."""
    given = asked.given["cache_dir"]
    return Path(given) if given else published.users_directory(asked.environment)


def _show_one(asked: Asked, store: Store | None) -> int:
    """Say what is known of one image, also at its registry."""
    from chlaunch.cli import transfer  # noqa: PLC0415  Python's requests takes 150 ms to load

    return transfer.show_image(asked, store)


def _row(use: keeping.Use) -> dict[str, Any]:
    """Return an image as JSON has it."""
    record = use.image.record
    return {
        "name": use.image.name,
        "reference": record.reference,
        "digest": record.digest,
        "platform": record.platform,
        "made": record.made,
        "layers": len(use.image.layers),
        "size": use.size,
        "size_own": use.own,
    }


def _age(made: float) -> str:
    """Return for how long something has been there, for people."""
    seconds = max(0.0, time.time() - made)
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
