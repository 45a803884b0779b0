"""ch-site: what an admin installs for Slurm, and whether the nodes are fit for it."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from chlaunch import native
from chlaunch.admin import change, parts, places, plugin, record
from chlaunch.admin.parts import Request
from chlaunch.admin.places import Root
from chlaunch.cli import nodes, shared
from chlaunch.cli.words import parsed
from chlaunch.errors import ChlaunchError, UsageError
from chlaunch.slurm import configuration

NAME = "ch-site"

USAGE = f"usage: {NAME} install|uninstall|check [OPTION...]; {NAME} install --help"

INSTALL = """Put in place the SPANK plugin for this host's Slurm, its line in plugstack.conf, and an epilog.

Shows what changes before it does so. What an admin has changed since is left alone. slurm.conf is never
edited: what to say there is told.

\b
  ch-site install --dry-run
  ch-site install --cli-filter
"""

UNINSTALL = """Undo what ch-site install did; what an admin has changed since is left alone."""

ROOT = click.Option(
    ["--root"], metavar="DIR", default="/", help="install below DIR: the root of an image or package"
)
DRY = click.Option(["--dry-run"], is_flag=True, help="show what would change, and change nothing")


def main() -> None:
    """Run the command and exit."""
    sys.exit(shared.run(NAME, site, sys.argv[1:]))


def site(words: list[str], environment: Mapping[str, str]) -> int:
    """Do what the first word says.

    Raises:
        ChlaunchError: any of the family.

    """
    deeds = {"install": install, "uninstall": uninstall, "check": nodes.check}
    if words[:1] == ["--help"]:
        for name in deeds:
            click.echo(f"{NAME} {name} --help")
        return 0
    if not words or words[0] not in deeds:
        raise UsageError(f"no such command: {words[0]}" if words else "nothing to do", USAGE)
    return deeds[words[0]](words[1:], environment)


def install(words: list[str], environment: Mapping[str, str]) -> int:
    """Install; return 0.

    Raises:
        UsageError: the options make no sense.
        RefusedError: a file is the admin's, or the plugin is for another Slurm.
        ChlaunchError: a file can't be read or written.

    """
    given = parsed(_install_command(), words)
    if given is None:
        return 0
    with places.open_root(given["root"]) as root:
        request = _request(root, given, environment)
        known = record.load(root)
        changes = change.plan(root, known, parts.wanted(root, request), overwrite=given["overwrite"])
        for line in change.shown(root, changes):
            click.echo(line)
        if given["dry_run"]:
            click.echo(f"# nothing was written ({NAME} install --dry-run)")
        else:
            change.apply(root, known, changes)
        if request.plugin and (trouble := plugin.planner_trouble(request.planner)):
            shared.say(NAME, f"warning: users can't, or should not, start the planner: {trouble}")
            shared.say(NAME, "hint: install chlaunch where root alone can write and all can read")
        for line in parts.advice(root, request):
            shared.say(NAME, line)
    return 0


def uninstall(words: list[str], environment: Mapping[str, str]) -> int:  # noqa: ARG001  as its siblings
    """Undo; return 0.

    Raises:
        UsageError: the options make no sense.
        ChlaunchError: a file can't be read or written.

    """
    command = click.Command(f"{NAME} uninstall", help=UNINSTALL, params=[ROOT, DRY])
    given = parsed(command, words)
    if given is None:
        return 0
    with places.open_root(given["root"]) as root:
        known = record.load(root)
        if not known.entries:
            shared.say(NAME, f"nothing is installed here: there is no {root.shown(record.PATH)}")
            return 0
        changes = change.plan_undo(root, known)
        for line in change.shown(root, changes):
            click.echo(line)
        if given["dry_run"]:
            click.echo(f"# nothing was changed ({NAME} uninstall --dry-run)")
            return 0
        change.undo(root, known, changes)
        for left in (one for one in changes if one.overwritten):
            shared.say(NAME, f"warning: {root.shown(left.path)}: {left.said}")
    return 0


def _install_command() -> click.Command:
    """Return click's idea of ``ch-site install``."""
    return click.Command(
        f"{NAME} install",
        help=INSTALL,
        params=[
            ROOT,
            click.Option(["--slurm-conf"], metavar="DIR", help="where slurm.conf is, as seen below --root"),
            click.Option(
                ["--plugin"], metavar="FILE", help=f"this {plugin.NAME}, not the one built with chlaunch"
            ),
            click.Option(["--no-plugin"], is_flag=True, help="neither the plugin nor its line"),
            click.Option(
                ["--plugin-dir"],
                metavar="DIR",
                default=parts.PLUGIN_DIRECTORY,
                help=f"where the plugin goes, not {parts.PLUGIN_DIRECTORY}",
            ),
            click.Option(
                ["--planner"], metavar="PYTHON", default=sys.executable, help="not the Python that runs this"
            ),
            click.Option(["--slurm"], metavar="RELEASE", help="which Slurm it is for, not that of srun here"),
            click.Option(
                ["--epilog/--no-epilog"], default=True, help="epilog.d/50-chlaunch; it is the default"
            ),
            click.Option(
                ["--cli-filter"], is_flag=True, help="cli_filter.lua: classic mistakes become messages"
            ),
            click.Option(
                ["--oci"], is_flag=True, help="oci.conf, which takes srun --container from the plugin"
            ),
            click.Option(
                ["--from", "source"], metavar="DIR", help="where those three are, not chlaunch's own"
            ),
            click.Option(
                ["--overwrite"], is_flag=True, help="also what an admin has changed; copies are kept"
            ),
            DRY,
        ],
        context_settings={"max_content_width": 100},
    )


def _request(root: Root, given: Mapping[str, Any], environment: Mapping[str, str]) -> Request:
    """Return what was asked for.

    Raises:
        UsageError: two options contradict each other, or a directory is not absolute.
        ChlaunchError: there is no plugin for this Slurm, or its version can't be found out.

    """
    if given["no_plugin"] and given["plugin"]:
        raise UsageError("both --plugin and --no-plugin")
    srun = shutil.which("srun", path=environment.get("PATH"))
    conf = given["slurm_conf"] or _configuration(root, srun, environment)
    for option, path in (("--slurm-conf", conf), ("--plugin-dir", given["plugin_dir"])):
        if not path.startswith("/"):
            raise UsageError(f"{option} takes an absolute path, as seen below --root: {path}")
    file, release = "", given["slurm"] or ""
    if not release and (given["oci"] or not given["no_plugin"]):
        release = plugin.release_here(srun)
    if not given["no_plugin"]:
        file = plugin.checked(given["plugin"], release)
    chosen = (("cli_filter.lua", "cli_filter"), ("epilog", "epilog"), ("oci.conf", "oci"))
    return Request(
        configuration=conf.rstrip("/"),
        plugin=file,
        planner=given["planner"],
        ch_run="" if root.path else native.ch_run(environment),
        scripts=tuple(part for part, option in chosen if given[option]),
        plugin_directory=given["plugin_dir"].rstrip("/"),
        source=given["source"],
        release=release,
    )


def _configuration(root: Root, srun: str | None, environment: Mapping[str, str]) -> str:
    """Return the directory of slurm.conf in root, where none was named.

    Raises:
        ChlaunchError: the one here was fetched from the controller.

    """
    if root.path or srun is None:
        return parts.CONFIGURATION
    found = configuration(srun, environment)
    directory = str(Path(found).absolute().parent) if found else parts.CONFIGURATION
    if directory == parts.FETCHED:
        raise ChlaunchError(
            f"this host's configuration, {directory}, is fetched from the controller",
            "install on the controller, in its own directory; or name another one with --slurm-conf",
        )
    return directory
