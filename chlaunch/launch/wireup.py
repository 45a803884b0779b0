"""How ranks find each other: which of srun's --mpi= types the image's MPI can speak with, or why none."""

from dataclasses import dataclass

from chlaunch.errors import RefusedError
from chlaunch.launch.context import Context
from chlaunch.launch.inspect import Image
from chlaunch.launch.launchers import HERE, Launcher
from chlaunch.launch.options import ENVIRONMENT, Settings
from chlaunch.launch.tables import Row
from chlaunch.slurm import Offer


@dataclass(frozen=True)
class WireUp:
    """The words to add to the launcher's, why, and what the user should hear in any case."""

    words: tuple[str, ...]
    row: Row
    notes: tuple[str, ...] = ()


def without_offer(
    settings: Settings, given: str | None, context: Context, image: Image, launcher: Launcher
) -> WireUp | None:
    """Return the wire-up where it does not depend on what srun offers, else None."""
    asked = settings.last("mpi")
    if launcher.name != "srun":
        wires = image.flavour.wire_ups if image.flavour else ()
        known = [wire.row for wire in wires if wire.launcher == launcher.name]
        what = f"wire-up by {'the image' if launcher.name == 'guest' else 'the host'}'s mpirun"
        return WireUp((), known[0] if known else Row(what, f"the image speaks {image.speaks}", HERE))
    if given is not None:
        row = Row(f"--mpi={given}", "given in srun's words, which are left alone", "command line")
        return WireUp((), row, _doubt(given, image))
    if asked is not None and asked.value != "auto":
        row = Row(f"--mpi={asked.value}", "asked for", asked.origin)
        return WireUp((f"--mpi={asked.value}",), row)
    if context.mpi_type is not None and (asked is None or asked.strength < ENVIRONMENT):
        row = Row(f"--mpi={context.mpi_type}", "srun reads SLURM_MPI_TYPE", "environment (SLURM_MPI_TYPE)")
        return WireUp((), row, _doubt(context.mpi_type, image))
    return None if image.library else _without_library(image)


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


def best(image: Image, offer: Offer | None) -> WireUp:
    """Return the first of the flavour's wire-ups that srun offers.

    Raises:
        RefusedError: there is none.

    """
    plugins = offer.plugins if offer else ()
    fits = [wire for wire in (image.flavour.wire_ups if image.flavour else ()) if wire.plugin in plugins]
    if fits:
        best = fits[0]
        said = f"the image speaks {image.speaks}, srun offers {', '.join(plugins)}; {best.row.reason}"
        return WireUp((f"--mpi={best.plugin}",), Row(f"--mpi={best.plugin}", said, best.row.origin))
    wanted = ", ".join(_speakable(image))
    needs = f", which needs one of {wanted}" if wanted else ""
    guest = "--ch-launcher=guest starts the image's own mpirun on one machine; " if image.mpirun else ""
    raise RefusedError(
        f"the image speaks {image.speaks}{needs}; this srun offers {', '.join(plugins) or 'nothing'}",
        f"{guest}--mpi=TYPE insists on a type; --ch-mpi=none if the command is no MPI program",
    )


def _speakable(image: Image) -> tuple[str, ...]:
    """Return srun's types that the image's MPI can speak with."""
    flavour = image.flavour
    return tuple(wire.plugin for wire in flavour.wire_ups if wire.launcher == "srun") if flavour else ()


def _doubt(chosen: str, image: Image) -> tuple[str, ...]:
    """Return a note where the type the user chose is one that the image's MPI can't speak with."""
    speakable = _speakable(image)
    if image.flavour is None or chosen in (*speakable, "list"):
        return ()
    needs = f"the image speaks {image.speaks}, which needs one of {', '.join(speakable)}"
    return (f"--mpi={chosen}: {needs}; expect an error, or as many worlds of one rank as there are ranks",)
