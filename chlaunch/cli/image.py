"""ch-image: pull, push, import and keep images.

Options that all subcommands have may stand before the subcommand or after it.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from chlaunch.cli import progress, shared
from chlaunch.cli.asked import Asked, limits_of, name_in_storage
from chlaunch.cli.progress import size
from chlaunch.errors import UsageError
from chlaunch.image import keeping, reference
from chlaunch.rootfs import storage_directory

NAME = "ch-image"

# Where temporary files are if nobody says: /tmp may be in memory.
TEMPORARY = "/var/tmp"  # noqa: S108  that is its purpose

HELP = """Pull, push, import and keep container images, without privileges."""

Deed = Callable[[Asked], int]


COMMON = (
    click.Option(["-a", "--arch"], metavar="ARCH", help="amd64, arm64/v8, …; host (the default); yolo: any"),
    click.Option(["--always-download"], is_flag=True, help="also what is there already"),
    click.Option(["--auth/--no-auth"], default=None, help="log in also where a registry does not ask"),
    click.Option(["--debug"], is_flag=True, help="show a traceback when something fails"),
    click.Option(["--json"], is_flag=True, help="results and progress as JSON"),
    click.Option(["-q", "--quiet"], count=True, help="only warnings; twice: nothing"),
    click.Option(["-s", "--storage"], metavar="DIR", help="not $CH_IMAGE_STORAGE, not /var/tmp/$USER.ch"),
    click.Option(["--tls-no-verify"], is_flag=True, help="trust any registry: do not"),
    click.Option(["-v", "--verbose"], count=True, help="say more"),
)


LIMITS = (
    click.Option(
        ["--max-size"], type=click.IntRange(1), metavar="GIB", help="a layer may have (default: 512)"
    ),
    click.Option(
        ["--max-members"], type=click.IntRange(1), metavar="N", help="files a layer may have (20000000)"
    ),
)


def main() -> None:
    """Run the command and exit."""
    sys.exit(shared.run("", image, sys.argv[1:], shared.CHARLIECLOUD))


def image(words: list[str], environment: Mapping[str, str]) -> int:
    """Do what the first word that is no option says.

    Raises:
        ChlaunchError: any of the family.

    """
    group = click.Group(
        NAME,
        help=HELP,
        params=[*COMMON, click.Option(["--version"], is_flag=True, is_eager=True, callback=_version)],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        commands=[_command(name, *row, environment) for name, row in COMMANDS.items()],
    )
    try:
        done = group.main(list(words), prog_name=NAME, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        raise UsageError("no subcommand", f"{NAME} --help") from error
    except click.UsageError as error:
        raise UsageError(error.format_message(), f"{NAME} --help") from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    return int(done or 0)


def _command(
    name: str, deed: Deed, text: str, parameters: list[click.Parameter], environment: Mapping[str, str]
) -> click.Command:
    """Return click's idea of a subcommand."""

    def callback(**given: Any) -> int:  # noqa: ANN401  as click has it
        parent = click.get_current_context().parent
        before = {} if parent is None else parent.params
        for option in COMMON:
            if not given.get(str(option.name)):
                given[str(option.name)] = before.get(str(option.name))
        events = progress.events(given["quiet"] or 0, as_json=given["json"])
        return deed(Asked(given, environment, events))

    return click.Command(name, callback=callback, params=[*parameters, *COMMON], help=text)


def delete(asked: Asked) -> int:
    """Delete images."""
    store = asked.store()
    for name in keeping.delete(store, asked.given["globs"]):
        asked.events.say(f"deleted: {name} (until ch-image gc: ch-image undelete {name})")
    return 0


def undelete(asked: Asked) -> int:
    """Bring one back."""
    keeping.undelete(asked.store(), asked.given["image"])
    return 0


def collect(asked: Asked) -> int:
    """Remove what no image needs."""
    freed = keeping.collect(asked.store(), asked.events.say)
    asked.events.say(f"removed {size(freed)}")
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
    if asked.given["json"]:
        click.echo(json.dumps({"storage": str(store.path), **asdict(took)}))
        return 0
    for words, count in (
        ("layers of images", took.layers),
        ("archives of layers", took.blobs),
        ("layers of deleted images alone", took.deleted),
        ("what gc would remove besides", took.idle),
        ("free on that file system", took.free),
    ):
        click.echo(f"{size(count):>10}  {words}")
    return 0


def show(asked: Asked) -> int:
    """List images, or say what is known of one."""
    store = asked.store_if_any()
    if asked.given["image"]:
        return int(_transfer().show_image(asked, store))
    if store is None:
        if asked.given["json"]:
            click.echo("[]")
        return 0
    uses = keeping.usage(store, "deleted" if asked.given["undeletable"] else "images")
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


def pull(asked: Asked) -> int:
    """Pull an image."""
    return int(_transfer().pull_image(asked))


def push(asked: Asked) -> int:
    """Push an image."""
    return int(_transfer().push_image(asked))


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


def login(asked: Asked) -> int:
    """Log in at a registry."""
    return int(_transfer().login(asked))


def logout(asked: Asked) -> int:
    """Log out."""
    return int(_transfer().logout(asked))


def _transfer() -> ModuleType:
    """Return the module that talks to registries: Python's requests takes 150 ms to load."""
    from chlaunch.cli import transfer  # noqa: PLC0415

    return transfer


COMMANDS: dict[str, tuple[Deed, str, list[click.Parameter]]] = {
    "delete": (
        delete,
        "Delete images that match shell patterns; undelete brings them back, until gc.",
        [click.Argument(["globs"], metavar="IMAGE_GLOB...", nargs=-1, required=True)],
    ),
    "du": (room, "Say what storage takes.", []),
    "gc": (collect, "Remove what no image needs, and deleted images for good.", []),
    "gestalt": (
        gestalt,
        "Say something about ch-image: storage-path, python-path, dependencies.",
        [click.Argument(["what"], type=click.Choice(["storage-path", "python-path", "dependencies"]))],
    ),
    "import": (
        import_image,
        "Make an image of a directory, an archive of files, an OCI layout, or what docker save writes.",
        [
            click.Argument(["path"], metavar="PATH_OR_URL"),
            click.Argument(["image"], metavar="IMAGE_REF"),
            *LIMITS,
        ],
    ),
    "list": (
        show,
        "List images in storage; of one, say also what its registry has.",
        [
            click.Argument(["image"], metavar="[IMAGE_REF]", required=False),
            click.Option(["-l", "--long"], is_flag=True, help="size, size of its own, platform, age"),
            click.Option(["-u", "--undeletable"], is_flag=True, help="deleted images"),
        ],
    ),
    "login": (
        login,
        "Keep name and password for a registry (default: Docker Hub), once it has taken them.",
        [
            click.Argument(["registry"], required=False),
            click.Option(["-u", "--username"], metavar="NAME"),
            click.Option(["--password-stdin"], is_flag=True, help="read the password from standard input"),
        ],
    ),
    "logout": (logout, "Forget them.", [click.Argument(["registry"], required=False)]),
    "pull": (
        pull,
        "Bring an image from a registry into storage, under the name DEST if given.",
        [
            click.Argument(["source"], metavar="SOURCE"),
            click.Argument(["target"], metavar="[DEST]", required=False),
            click.Option(
                ["--last-layer"], type=click.IntRange(0), metavar="N", help="only N layers, from the lowest"
            ),
            click.Option(["--parse-only"], is_flag=True, help="say what the reference consists of, and stop"),
            *LIMITS,
        ],
    ),
    "push": (
        push,
        "Bring an image from storage to its registry, or to that of DEST.",
        [
            click.Argument(["source"], metavar="SOURCE"),
            click.Argument(["target"], metavar="[DEST]", required=False),
            click.Option(["--image"], metavar="DIR", help="this directory, not the image in storage"),
        ],
    ),
    "reset": (reset, "Remove all of the storage.", []),
    "undelete": (
        undelete,
        "Bring a deleted image back.",
        [click.Argument(["image"], metavar="IMAGE_REF")],
    ),
}


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


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  click calls it
    """Say which version this is."""
    if wanted:
        click.echo(shared.version())
        context.exit()
