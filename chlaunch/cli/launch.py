"""ch-launch: one line that starts every rank of an MPI program inside an image."""

import os
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import click

from chlaunch.cli import shared
from chlaunch.errors import ExecError, UsageError
from chlaunch.launch import prepare
from chlaunch.launch.grammar import USAGE, Words
from chlaunch.launch.options import OPTIONS, Option
from chlaunch.launch.plan import Plan
from chlaunch.launch.prepare import Door

NAME = "ch-launch"

HELP = """Start an MPI program inside an image.

What starts with --ch- is ours, the last word before -- is the image, and everything else goes to the launcher
(srun where there is a Slurm, else the host's mpirun, else the image's own) as it is.

\b
  ch-launch -N2 -n4 ./image -- ./a.out
  ch-launch --ch-dry-run -n4 ./image -- python3 -m chlaunch.probe
"""

EPILOG = (
    "Every option has a twin in the environment: --ch-set-env is CHLAUNCH_SET_ENV, with one value a line."
)


def main() -> None:
    """Run the command and exit."""
    sys.exit(shared.run(NAME, launch, sys.argv[1:]))


def launch(words: list[str], environment: Mapping[str, str]) -> int:
    """Plan, show what was asked for, and become the launcher.

    Raises:
        ChlaunchError: any of the family.

    """
    if words[:1] == ["--help"]:
        click.echo(_help())
        return 0
    if words[:1] == ["--version"]:
        click.echo(f"{NAME} {shared.version()}")
        return 0
    parts = prepare.split(words, environment)
    given = parse(parts.ours)
    asked = prepare.asked_here(given, environment)
    if asked.text("trace") and not asked.is_on("dry-run"):
        traced(asked.text("trace"), parts, given, environment)
    plan, settings = prepare.prepare(parts, given, environment, door(environment))
    shared.show(NAME, plan, settings)
    if settings.is_on("dry-run"):
        return 0
    return become(plan, environment)


def door(environment: Mapping[str, str], trace: str | None = None) -> Door:
    """Return how a launch of ours comes: images elsewhere are fetched, and staged where that is wanted."""
    return Door(
        trace=trace,
        fetch=lambda word, settings: shared.fetched(word, settings, environment),
        stage=lambda path, settings: shared.staged(path, settings, environment),
    )


def become(plan: Plan, environment: Mapping[str, str]) -> int:
    """Replace this process by the launcher; never returns.

    Raises:
        ExecError: the launcher could not be executed.

    """
    shared.restore_signals()
    try:
        os.execvpe(plan.argv[0], plan.argv, {**environment, **plan.environment})  # noqa: S606
    except OSError as error:
        raise _not_executed(plan, error) from error


def traced(file: str, parts: Words, given: Mapping[str, object], environment: Mapping[str, str]) -> NoReturn:
    """Launch, stay to hear what ranks report, write it to file; end as the launcher does.

    Raises:
        ChlaunchError: any of the family.

    """
    from chlaunch.cli import child, trace  # noqa: PLC0415  most launches are not traced

    taken = trace.begin(file)
    try:
        plan, settings = prepare.prepare(parts, given, environment, door(environment, trace=taken.address))
        shared.show(NAME, plan, settings)
        with child.signals_held() as mask:
            thread = trace.listen(taken)
            launched = trace.now()
            pid = start(plan, environment, mask)
            from chlaunch.cli import report  # noqa: PLC0415  while ranks start

            status = child.wait(pid)
            ended = trace.now()
            trace.end(taken, thread)
    except BaseException:
        trace.forget(taken)
        raise
    found = report.gather(taken, plan.launcher, launched, ended)
    warnings = report.write(taken, found)
    with suppress(OSError):  # whoever read our output may have gone
        if settings.is_on("json"):
            click.echo(report.as_json(taken, found), err=True)
        for line in () if settings.is_on("json") else report.lines(found):
            shared.say(NAME, line)
        for warning in warnings:
            shared.say(NAME, f"warning: {warning}")
    child.end_alike(status)


def start(plan: Plan, environment: Mapping[str, str], mask: Iterable[int]) -> int:
    """Start the launcher as a process of our own group, on our terminal; return its PID. mask: its signals.

    Raises:
        ExecError: the launcher could not be executed.

    """
    try:
        return os.posix_spawnp(
            plan.argv[0],
            plan.argv,
            {**environment, **plan.environment},
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
        )
    except OSError as error:
        raise _not_executed(plan, error) from error


def _not_executed(plan: Plan, error: OSError) -> ExecError:
    """Return how it is said that there is no launcher."""
    return ExecError(f"can't execute {plan.argv[0]}: {error.strerror}")


def parse(ours: tuple[str, ...]) -> dict[str, Any]:
    """Return the options in the words that are ours, by name; None or () for those not given.

    Raises:
        UsageError: click knows no such option, or it can't have that value.

    """
    alone = {f"--ch-{option.name}": option.alone for option in OPTIONS if option.kind == "optional"}
    words = [f"{word}={alone[word]}" if word in alone else word for word in ours]
    try:
        context = command().make_context(NAME, words)
    except click.UsageError as error:
        raise UsageError(error.format_message(), f"{NAME} --help lists the options") from error
    return {name.removeprefix("ch_").replace("_", "-"): value for name, value in context.params.items()}


def command() -> click.Command:
    """Return click's idea of our options, made from the one table."""
    version = click.Option(["--version"], is_flag=True, expose_value=False, help="Show the version and exit.")
    return click.Command(
        NAME,
        help=HELP,
        epilog=EPILOG,
        params=[*(_parameter(option) for option in OPTIONS if option.door != "srun"), version],
        options_metavar=USAGE.removeprefix(NAME).strip(),
        context_settings={"max_content_width": 100},
    )


def _parameter(option: Option) -> click.Option:
    """Return click's form of one row of the table."""
    long = f"--ch-{option.name}"
    if option.kind == "switch":
        return click.Option([f"{long}/--ch-no-{option.name}"], default=None, help=option.help)
    if option.kind == "flag":
        return click.Option([long], is_flag=True, default=None, help=option.help)
    metavar = f"[={option.metavar}]" if option.kind == "optional" else option.metavar
    return click.Option([long], multiple=option.kind == "list", metavar=metavar, help=option.help)


def _help() -> str:
    """Return click's help text, with the values of our options after the ``=`` that they need."""
    import re  # noqa: PLC0415  only with --help

    ours = command()
    text = ours.get_help(click.Context(ours, info_name=NAME))
    for before, between in (r"[^\s/\[]", "="), (r"\[", ""):
        text = re.sub(rf"^(  --ch-[a-z0-9-]+) (?={before})", rf"\1{between}", text, flags=re.MULTILINE)
    return text
