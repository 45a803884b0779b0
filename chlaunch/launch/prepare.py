"""Gather the facts for a request, in the order that asks for least, and plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chlaunch import slurm
from chlaunch.errors import ExecError
from chlaunch.launch import (
    cache,
    contents,
    context,
    devices,
    flavour,
    grammar,
    launchers,
    options,
    plan,
    site,
    starter,
    wireup,
)
from chlaunch.launch.grammar import Words
from chlaunch.launch.image import Asked, Image
from chlaunch.launch.options import Settings
from chlaunch.launch.plan import Plan, Request
from chlaunch.rootfs import open_image, storage_directory


def split(words: list[str], environment: Mapping[str, str]) -> Words:
    """Return the parts of a command line; $CHLAUNCH_IMAGE stands in where it has no image.

    Raises:
        UsageError: see grammar.split().

    """
    return grammar.split(words, image_elsewhere=bool(environment.get(options.BY_NAME["image"].variable)))


def asked_here(given: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Return what the user asked for here and now, on the command line (given) and in the environment.

    Raises:
        UsageError: a value makes no sense.

    """
    return options.merge(options.from_environment(environment), options.from_command_line(given))


@dataclass(frozen=True)
class Door:
    """By which a launch comes.

    trace: where its times are listened for, if they are. plugin: the path of the srun whose plugin asks; then
    a configuration file must be the user's own or root's. fetch: returns the image here for one elsewhere.
    stage: returns where ranks find an image, given its path here.
    """

    trace: str | None = None
    plugin: str | None = None
    fetch: Callable[[str, Settings], str] = lambda word, _settings: word
    stage: Callable[[str, Settings], str] = lambda path, _settings: path


def prepare(
    words: Words, given: Mapping[str, object], environment: Mapping[str, str], door: Door
) -> tuple[Plan, Settings]:
    """Return the plan for a command line, and all settings. given: what click made of the words of ours.

    Raises:
        ChlaunchError: any of the family; see the functions called.

    """
    said = options.from_command_line(given)
    twins = options.from_environment(environment)
    named = options.merge(twins, said).text("site") or None
    found = site.load(environment, named, guarded=door.plugin is not None)
    settings = options.merge(*found.layers, twins, said)
    word = words.image if words.image is not None else settings.text("image")
    word = door.fetch(word, settings)
    rootfs = open_image(word, storage_directory(settings.text("storage"), environment))
    here = replace(
        context.read(environment, door.plugin),
        devices=devices.gather(settings, environment, rootfs),
        trace=door.trace,
    )
    if launchers.may_ask_mpirun(settings, here) and here.mpirun:
        here = replace(here, starter=starter.starter(here.mpirun))
    names = {name for launcher in launchers.LAUNCHERS for name in launcher.directory_options}
    place = grammar.value_of(words.launcher, tuple(names))
    asked = contents.asked(settings, words.command, here, found, place)
    image = cache.inspect(rootfs, flavour.load(), asked, environment)
    image = replace(image, path=door.stage(image.path, settings))
    if door.plugin is not None:
        _check_command(words, settings, asked, image)
    request = Request(settings, words.launcher, words.command)
    asks = plan.needs_offer(request, here, image)
    offer = slurm.offer(here.srun, with_version=wireup.asks_version(image)) if asks and here.srun else None
    return plan.plan(request, here, found, image, offer), settings


def _check_command(words: Words, settings: Settings, asked: Asked, image: Image) -> None:
    """Raise ExecError for a command that ranks will not find: one line now, instead of one from each.

    Only where that is sure: a name without a slash, searched for in places that are the same on the nodes.
    """
    if image.unseen or image.command or image.files or "/" in words.command[0]:
        return
    if any(word.startswith(("--export", "--task-prolog")) for word in words.launcher):
        return
    kinds = ("bind", "bind-ro", "bind-try")
    if any(":" in str(setting.value) for kind in kinds for setting in settings.all(kind)):
        return
    places = asked.variables.get("PATH", "").split(":")
    shown = tuple(target for target, _ in asked.shown)
    if all(Path(place).is_dir() or not place.startswith(shown) for place in places):
        raise ExecError(
            f"command not found in the image: {words.command[0]}",
            "give its path in the container; does the image have it?",
        )
