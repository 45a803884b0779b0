"""A command's words, as click understands them."""

from typing import Any

import click

from chlaunch.errors import UsageError


def parsed(command: click.Command, words: list[str]) -> dict[str, Any] | None:
    """Return what was given to a command; None if it was help that was wanted, which is printed.

    Raises:
        UsageError: there is no such option, or a value it can't have.

    """
    if "--help" in words:
        click.echo(command.get_help(click.Context(command, info_name=command.name)))
        return None
    try:
        return dict(command.make_context(command.name, list(words)).params)
    except click.UsageError as error:
        raise UsageError(error.format_message(), f"{command.name} --help") from error
