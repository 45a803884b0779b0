"""ch-convert: an image in another format."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from chlaunch.cli import progress, shared
from chlaunch.cli.asked import Asked, name_in_storage
from chlaunch.errors import UsageError
from chlaunch.image import formats, reference
from chlaunch.image.convert import Conversion, check, convert
from chlaunch.image.formats import FORMATS, IMAGE, Place
from chlaunch.image.importing import Importing
from chlaunch.image.manifest import Platform
from chlaunch.image.tools import Tools

NAME = "ch-convert"

HELP = f"""Convert the image IN to OUT.

Formats are guessed from names, and what is there: *.sqfs is squash; *.tar, *.tar.gz, *.tgz and the like are
tar; *.sif is sif; /… and ./… are directories; all else is in ch-image's storage.

Formats: {" ".join(FORMATS)}.
"""

# Where temporary files are if nobody says: /tmp may be in memory.
TEMPORARY = "/var/tmp"  # noqa: S108  that is its purpose


def main() -> None:
    """Run the command and exit."""
    with shared.ending_well():
        sys.exit(shared.run("", convert_image, sys.argv[1:], shared.CHARLIECLOUD))


def convert_image(words: list[str], environment: Mapping[str, str]) -> int:
    """Convert an image.

    Raises:
        ChlaunchError: any of the family.

    """
    try:
        given = command().make_context(NAME, list(words)).params
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.UsageError as error:
        raise UsageError(error.format_message(), f"{NAME} --help") from error
    asked = Asked(given, environment, progress.events(given["quiet"] or 0, as_json=given["json"]))
    conversion = _conversion(asked)
    asked.events.say(f"input:   {conversion.source}")
    asked.events.say(f"output:  {conversion.target}")
    check(conversion)
    if not given["dry_run"]:
        convert(conversion)
        asked.events.say("done")
    asked.result({end: _described(getattr(conversion, end)) for end in ("source", "target")})
    return 0


def command() -> click.Command:
    """Return click's idea of ch-convert."""
    return click.Command(
        NAME,
        help=HELP,
        params=[
            click.Argument(["source"], metavar="IN"),
            click.Argument(["target"], metavar="OUT"),
            click.Option(["-i", "--in-fmt"], metavar="FMT", help="the format of IN"),
            click.Option(["-o", "--out-fmt"], metavar="FMT", help="the format of OUT"),
            click.Option(
                ["-a", "--arch"], metavar="ARCH", help="of images for several: host, yolo, amd64, …"
            ),
            click.Option(["--debug"], is_flag=True, help="show a traceback when something fails"),
            click.Option(["--json"], is_flag=True, help="result and progress as JSON"),
            click.Option(["-n", "--dry-run"], is_flag=True, help="only show what would be done"),
            click.Option(["--no-clobber"], is_flag=True, help="fail if OUT exists"),
            click.Option(["--xattrs/--no-xattrs"], default=True, help="keep user.* attributes (the default)"),
            click.Option(["-q", "--quiet"], count=True, help="only warnings; twice: nothing"),
            click.Option(["-s", "--storage"], metavar="DIR", help="ch-image's storage"),
            click.Option(["--tmp"], metavar="DIR", help="for temporary files: not $TMPDIR, not /var/tmp"),
            click.Option(["-v", "--verbose"], count=True, help="say what is run"),
            click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version),
        ],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _conversion(asked: Asked) -> Conversion:
    """Return what was asked for.

    Raises:
        UsageError: the words make no sense.
        ImageError: a program is missing.

    """
    given, environment = asked.given, asked.environment
    source = formats.input_place(given["source"], given["in_fmt"] or "", environment)
    target = formats.output_place(given["target"], given["out_fmt"] or "", environment)
    platform = asked.platform()
    return Conversion(
        _named(source, platform),
        _named(target, platform),
        Importing(
            Tools(environment, asked.events, verbose=bool(given["verbose"])),
            Path(os.path.abspath(given["tmp"] or environment.get("TMPDIR") or TEMPORARY)),  # noqa: PTH100  links stay
            platform,
            xattrs=given["xattrs"],
        ),
        asked.store,
        clobber=not given["no_clobber"],
    )


def _named(place: Place, platform: Platform | None) -> Place:
    """Return a place whose name is a reference, if it is in storage, as it is there.

    Raises:
        UsageError: it is no reference.

    """
    if place.format.name != IMAGE:
        return place
    return replace(place, name=name_in_storage(str(reference.parse(place.word)), platform))


def _described(place: Place) -> dict[str, Any]:
    """Return a place as JSON has it."""
    where = {"path": str(place.path)} if place.format.is_path else {"name": place.name}
    return {"format": place.format.name, **where, **({"tag": place.tag} if place.tag else {})}


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  click calls it
    """Say which version this is."""
    if wanted:
        click.echo(shared.version())
        context.exit()
