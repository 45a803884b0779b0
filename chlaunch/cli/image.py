"""ch-image: build, pull, push, import and keep images.

Options that all subcommands have may stand before the subcommand or after it.
"""

import gc
import sys
from collections.abc import Mapping
from typing import Any

import click

from chlaunch.cli import progress, shared
from chlaunch.cli.asked import Asked
from chlaunch.cli.subcommands import COMMANDS, COMMON, Row
from chlaunch.errors import UsageError

NAME = "ch-image"

# Objects after which Python looks for cycles. Loading modules makes many and no cycles; a tenth faster so.
GARBAGE = 50_000

HELP = """Build, pull, push, import and keep container images, without privileges."""


def main() -> None:
    """Run the command and exit."""
    gc.set_threshold(GARBAGE)
    with shared.ending_well():
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
        commands=[_command(name, row, environment) for name, row in COMMANDS.items()],
    )
    try:
        done = group.main(list(words), prog_name=NAME, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        raise UsageError("no subcommand", f"{NAME} --help") from error
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else NAME
        raise UsageError(error.format_message(), f"{command} --help") from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    return int(done or 0)


def _command(name: str, row: Row, environment: Mapping[str, str]) -> click.Command:
    """Return click's idea of a subcommand."""

    def callback(**given: Any) -> int:  # noqa: ANN401  as click has it
        parent = click.get_current_context().parent
        before = {} if parent is None else parent.params
        for option in COMMON:
            if not given.get(str(option.name)):
                given[str(option.name)] = before.get(str(option.name))
        events = progress.events(given["quiet"] or 0, as_json=given["json"])
        return row.do(Asked(given, environment, events))

    return click.Command(name, callback=callback, params=[*row.parameters, *COMMON], help=row.help)


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  click calls it
    """Say which version this is."""
    if wanted:
        click.echo(shared.version())
        context.exit()
