"""ch-doctor [IMAGE [-- COMMAND...]]: host, site and image are looked over."""

from collections.abc import Mapping
from typing import Any

import click

from chlaunch.doctor import checkup
from chlaunch.errors import UsageError

NAME = "ch-doctor"

HELP = """Look over this host, its launchers, and maybe an image and a command in it.

Each line has a verdict, what was found, and what to do. Exit code: 0 if all is well, 1 for warnings, 2 for
problems. `ch-doctor explain` says what an error message means.

\b
  ch-doctor
  ch-doctor ./image -- ./a.out
  srun -N1 ch-doctor --json ./image
"""


def examine(words: list[str], environment: Mapping[str, str]) -> int:
    """Look over host, site and image; return the exit code.

    Raises:
        UsageError: an unknown option, or more than one image.

    """
    at = words.index("--") if "--" in words else len(words)
    if "--help" in words[:at]:
        click.echo(_command().get_help(click.Context(_command(), info_name=NAME)))
        return 0
    given = _parse(words[:at])
    command = tuple(words[at + 1 :])
    if command and not given["image"]:
        raise UsageError("a command, but no image", f"usage: {NAME} [--json] [IMAGE [-- COMMAND [ARG...]]]")
    told = checkup.examine(environment, given["image"] or "", command)
    verdicts: list[str] = []
    if given["json"]:
        click.echo(checkup.as_json(told, verdicts, environment))
    else:
        for line in checkup.as_lines(told, verdicts):
            click.echo(line)
    return checkup.exit_code(verdicts)


def _command() -> click.Command:
    """Return click's idea of the command line up to ``--``."""
    return click.Command(
        NAME,
        help=HELP,
        params=[
            click.Argument(["image"], required=False, metavar="[IMAGE [-- COMMAND...]]"),
            click.Option(["--json"], is_flag=True, help="report as one JSON object"),
        ],
        context_settings={"max_content_width": 100},
    )


def _parse(words: list[str]) -> dict[str, Any]:
    """Return what was given.

    Raises:
        UsageError: an unknown option, or more than one image.

    """
    try:
        return dict(_command().make_context(NAME, list(words)).params)
    except click.UsageError as error:
        raise UsageError(error.format_message(), f"{NAME} --help") from error
