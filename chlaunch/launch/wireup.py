"""How ranks find each other: which of srun's --mpi= types the image's MPI can speak with, or why none."""

import re
from dataclasses import dataclass, replace

from chlaunch.errors import RefusedError
from chlaunch.launch import flavour
from chlaunch.launch.context import Context
from chlaunch.launch.image import Image, Part
from chlaunch.launch.launchers import HERE, Launcher
from chlaunch.launch.options import ENVIRONMENT, Settings
from chlaunch.launch.tables import Row
from chlaunch.launch.versions import within
from chlaunch.slurm import Offer

FORCE = "force:"

# What srun answers by itself.
QUESTIONS = ("list", "help")


@dataclass(frozen=True)
class WireUp:
    """The words to add to the launcher's, why, and what the user should hear in any case.

    plugin: srun's type; empty if it is srun's default, or there is no srun. server: the version of its PMIx,
    as far as it is known.
    """

    words: tuple[str, ...]
    row: Row
    notes: tuple[str, ...] = ()
    plugin: str = ""
    server: str = ""


def without_offer(
    settings: Settings, given: str | None, context: Context, image: Image, launcher: Launcher
) -> WireUp | None:
    """Return the wire-up where it does not depend on what srun offers, else None.

    Raises:
        RefusedError: the user chose a type that the image's MPI can't speak with.

    """
    if launcher.name != "srun":
        return _without_srun(context, image, launcher)
    chosen = _chosen(settings, given)
    if chosen is not None:
        text = settings.text("mpi")
        return chosen if text == "none" or text.startswith(FORCE) else _checked(chosen, image)
    asked, own = settings.last("mpi"), context.mpi_type
    if own is not None and (asked is None or asked.strength < ENVIRONMENT) and _is_spoken(own, image):
        row = Row(f"--mpi={own}", "srun reads SLURM_MPI_TYPE", "environment (SLURM_MPI_TYPE)")
        return WireUp((), row, plugin=own, server=_server(own, None))
    return None if image.mpis or image.strange else _without_library(image)


def _chosen(settings: Settings, given: str | None) -> WireUp | None:
    """Return the wire-up that the user chose, None if they did not. given: in srun's words, which win."""
    asked = settings.last("mpi")
    text = settings.text("mpi", "auto")
    plugin = given or text.removeprefix(FORCE)
    if given is not None:
        row = Row(f"--mpi={given}", "given in srun's words, which are left alone", "command line")
    elif asked is None or text == "auto":
        return None
    else:
        reason = "forced" if text.startswith(FORCE) else "asked for"
        row = Row(f"--mpi={plugin}", reason, asked.origin)
    words = () if given is not None else (f"--mpi={plugin}",)
    return WireUp(words, row, plugin=plugin, server=_server(plugin, None))


def _without_srun(context: Context, image: Image, launcher: Launcher) -> WireUp:
    """Return why the launcher, which is not srun, can start the ranks."""
    kind = context.starter.kind if launcher.name == "mpirun" else launcher.name
    known = [
        wire.row
        for part in image.mpis
        for wire in part.flavour.starts(kind, part.version, features=part.features)
    ]
    what = f"wire-up by {'the image' if launcher.name == 'guest' else 'the host'}'s mpirun"
    reason = known[0].reason if known else f"the image speaks {image.speaks}"
    return WireUp((), Row(what, reason, known[0].origin if known else HERE))


def _without_library(image: Image) -> WireUp:
    """Return the wire-up for an image in which no MPI library was found: srun's own default."""
    if not image.unseen:
        reason = "there is no MPI library in the image; srun's own default holds"
        return WireUp((), Row("no --mpi", reason, image.path))
    reason = f"it is {image.unseen}, whose MPI can't be seen; srun's own default holds"
    note = (
        f"which MPI is in {image.unseen} can't be seen, so --mpi is left to srun's default;"
        " say --ch-mpi=pmix for Open MPI, --ch-mpi=none for no MPI"
    )
    return WireUp((), Row("no --mpi", reason, image.path), (note,))


def asks_version(image: Image) -> bool:
    """Say whether it matters which Slurm it is: a part of the image speaks only with some of them."""
    return any(
        row.slurm and within(part.version, row.versions)
        for part in image.parts
        for row in part.flavour.servers
    )


def needs_server(wire: WireUp, image: Image) -> bool:
    """Say whether it matters which PMIx is behind a chosen pmix: only srun knows."""
    return (wire.plugin == "pmix" and not wire.server) and any(
        part.flavour.servers or any(need.servers for need in part.flavour.variables) for part in image.parts
    )


def heard(wire: WireUp, image: Image, offer: Offer, settings: Settings) -> WireUp:
    """Return a chosen wire-up with the version of its PMIx.

    Raises:
        RefusedError: a part of the image can't speak with it, and the user does not insist.

    """
    server = _server(wire.plugin, offer)
    deaf = [(part, row) for part in image.parts if (row := _deaf(part, server, offer))]
    if deaf and not settings.text("mpi").startswith(FORCE):
        part, row = deaf[0]
        raise RefusedError(
            f"the image speaks {image.speaks} with {part.title}, and {wire.plugin} can't: {row.reason}",
            f"rebuild it with a newer {part.flavour.title}; --ch-mpi={FORCE}{wire.plugin} tries it",
        )
    return replace(wire, server=server)


def best(image: Image, offer: Offer | None, context: Context) -> WireUp:
    """Return the first wire-up that srun offers and all MPIs that may be meant can speak with.

    Raises:
        RefusedError: there is none.

    """
    plugins = offer.plugins if offer else ()
    notes = _overruled(context, image)
    for wire in _wires(image.mpis[0]) if image.mpis else ():
        server = _server(wire.plugin, offer)
        if (
            wire.plugin in plugins
            and all(wire.plugin in _speakable(part) for part in image.mpis)
            and not any(_deaf(part, server, offer) for part in image.parts)
        ):
            said = f"the image speaks {image.speaks}, srun offers {', '.join(plugins)}; {wire.row.reason}"
            row = Row(f"--mpi={wire.plugin}", said, wire.row.origin)
            return WireUp((f"--mpi={wire.plugin}",), row, notes, wire.plugin, server)
    if image.plain:
        reason = f"{image.command} needs no MPI; srun's own default holds"
        return WireUp((), Row("no --mpi", reason, image.path))
    raise RefusedError(*_no_match(image, offer, plugins))


def _overruled(context: Context, image: Image) -> tuple[str, ...]:
    """Return a note where the user's SLURM_MPI_TYPE is not heeded, because the image can't speak with it."""
    own = context.mpi_type
    if own is None or _is_spoken(own, image):
        return ()
    return (
        f"SLURM_MPI_TYPE is {own}, which {image.speaks} does not speak; --ch-mpi={FORCE}{own} insists on it",
    )


def _no_match(image: Image, offer: Offer | None, plugins: tuple[str, ...]) -> tuple[str, str]:
    """Return message and hint where nothing on offer fits the image."""
    offered = ", ".join(plugins) or "nothing"
    guest = "--ch-launcher=guest starts the image's own mpirun on one machine; " if image.mpirun else ""
    none = "--ch-mpi=none if the command is no MPI program"
    if len(image.mpis) > 1:
        return (
            f"the image has {image.speaks}, and the command does not tell which it uses; no type fits all",
            f"say {_types(image)}; {none}",
        )
    for part in image.parts:
        for plugin in plugins:
            deaf = _deaf(part, _server(plugin, offer), offer) if plugin.startswith("pmix") else None
            if deaf is not None:
                return (
                    f"the image speaks {image.speaks} with {part.title}, and {plugin} can't: {deaf.reason}",
                    f"{guest}rebuild it with a newer {part.flavour.title}; --ch-mpi={FORCE}{plugin} tries it",
                )
    needs = _needs(image)
    return (
        f"the image speaks {image.speaks}{needs}; this srun offers {offered}",
        f"{guest}--ch-mpi={FORCE}TYPE insists on a type; {none}",
    )


def _needs(image: Image) -> str:
    """Return which of srun's types the image's MPIs can speak with, as part of a sentence."""
    types = [re.sub("_v[0-9]+$", "", plugin) for part in image.mpis for plugin in _speakable(part)]
    return f", which needs --mpi={' or '.join(dict.fromkeys(types))}" if types else ""


def _types(image: Image) -> str:
    """Return what to say for which of the image's MPIs."""
    found: dict[str, list[str]] = {}
    for part in image.mpis:
        for plugin in _speakable(part)[:1]:
            found.setdefault(plugin, []).append(part.title)
    return ", or ".join(f"--ch-mpi={plugin} for {', '.join(titles)}" for plugin, titles in found.items())


def _checked(wire: WireUp, image: Image) -> WireUp:
    """Return the wire-up that the user chose, if the image can speak with it.

    Raises:
        RefusedError: it can't, so there would be an error, or as many worlds of one rank as there are ranks.

    """
    if wire.plugin in QUESTIONS or _is_spoken(wire.plugin, image):
        return wire
    needs = _needs(image)
    raise RefusedError(
        f"--mpi={wire.plugin}: the image speaks {image.speaks}{needs}: each rank would be a world of its own",
        f"leave --mpi={wire.plugin} out, and what fits is chosen; --ch-mpi=none if the command is no MPI"
        f" program; --ch-mpi={FORCE}{wire.plugin} insists",
    )


def _is_spoken(plugin: str, image: Image) -> bool:
    """Say whether a type is good for the image: one of its MPIs speaks it, or the command needs none."""
    if image.plain or not (image.mpis or image.strange):
        return True
    if image.strange:
        return plugin != "none"
    return any(plugin in _speakable(part) for part in image.mpis)


def _wires(part: Part) -> tuple[flavour.WireUp, ...]:
    """Return the ways in which srun can start the ranks of an MPI."""
    return part.flavour.starts("srun", part.version, features=part.features)


def _speakable(part: Part) -> tuple[str, ...]:
    """Return srun's types that an MPI can speak with."""
    return tuple(wire.plugin for wire in _wires(part))


def _server(plugin: str, offer: Offer | None) -> str:
    """Return the major version of the PMIx behind one of srun's types; empty if it is not known.

    pmix is the newest of those on offer (mpi_pmix.so leads there).
    """
    if found := re.fullmatch(r"pmix_v([0-9]+)", plugin):
        return found[1]
    newest = [
        int(name[6:]) for name in (offer.plugins if offer else ()) if re.fullmatch(r"pmix_v[0-9]+", name)
    ]
    return str(max(newest)) if plugin == "pmix" and newest else ""


def _deaf(part: Part, server: str, offer: Offer | None) -> Row | None:
    """Return why a part of the image can't speak with a server of that version; None if it can."""
    for row in part.flavour.servers if server else ():
        slurm = offer.version if offer else ""
        if within(server, row.servers) and within(part.version, row.versions) and within(slurm, row.slurm):
            return row.row
    return None
