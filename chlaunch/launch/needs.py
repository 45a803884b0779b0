"""What the libraries in an image must see and be told in a situation, by the rows of their tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from chlaunch.launch.container import VariableChange
from chlaunch.launch.flavour import Need, Refusal
from chlaunch.launch.image import Image, Part
from chlaunch.launch.options import Setting, Settings
from chlaunch.launch.tables import Row
from chlaunch.launch.versions import within

# Options by which a user, or a site, says what a variable is to be, in the order in which one's are done.
KINDS = ("unset-env", "env-default", "set-env", "set-env0", "env")


@dataclass(frozen=True)
class Situation:
    """How ranks start. launcher: as in the tables; plugin: srun's --mpi=; server: version of its PMIx.

    shared: the ranks of a node are in one user namespace. tmp_hidden: they do not see their node's /tmp.
    """

    launcher: str
    plugin: str = ""
    server: str = ""
    shared: bool = True
    tmp_hidden: bool = False


def binds(image: Image, situation: Situation) -> list[Row]:
    """Return what ranks must see, each path once."""
    found = {
        need.row.value: need.row
        for part in (*image.mpis, *image.parts)
        for need in part.flavour.binds
        if _holds(need, part, situation)
    }
    return list(found.values())


def variables(
    settings: Settings, image: Image, situation: Situation
) -> tuple[list[tuple[VariableChange, Row]], list[Row]]:
    """Return what ranks must be told where nothing was said about it, and what is left to somebody's word."""
    told: dict[str, tuple[VariableChange, Row]] = {}
    left: list[Row] = []
    for part in (*image.mpis, *image.parts):
        for need in part.flavour.variables:
            name = need.row.value
            if name in told or not _holds(need, part, situation):
                continue
            said = _said(settings, name)
            if said is not None:
                reason = f"{need.row.origin} would have said {name}={need.value}: {need.row.reason}"
                left.append(Row(f"{name} left to {said.value}", reason, said.origin))
            else:
                row = Row(f"{name}={need.value}", need.row.reason, need.row.origin)
                told[name] = VariableChange("default", name, need.value), row
    return list(told.values()), left


def conflicts(
    settings: Settings, environment: Mapping[str, str], image: Image, situation: Situation
) -> tuple[str, ...]:
    """Return what the user should hear of values that they set themselves."""
    found: list[str] = []
    for part in (*image.mpis, *image.parts):
        for conflict in part.flavour.conflicts:
            name = conflict.row.value
            said = _said(settings, name)
            if name in environment and said in settings.all("env-default"):
                said = None  # a default gives way to what is in the environment
            value = str(said.value).partition("=")[2] if said is not None else environment.get(name, "")
            if (
                fnmatchcase(value, conflict.value)
                and within(part.version, conflict.versions)
                and _is_sharing(conflict.sharing, situation)
            ):
                where = said.origin if said is not None else "environment"
                found.append(f"{name}={value} ({where}): {conflict.row.reason}")
    return tuple(found)


def refusal(image: Image, situation: Situation) -> tuple[Part, Refusal] | None:
    """Return why this can't go well, and for which part of the image; None if nothing is known against it."""
    for part in image.mpis:
        for refused in part.flavour.refusals:
            if (
                refused.has in part.features
                and within(part.version, refused.versions)
                and _is_sharing(refused.sharing, situation)
            ):
                return part, refused
    return None


def _holds(need: Need, part: Part, situation: Situation) -> bool:
    """Say whether a row is for this part in this situation.

    Of a version that could not be read all rows hold that make separate ranks safe: they do no harm.
    """
    unread = not part.version and need.sharing == "separate"
    return (
        (not need.launchers or situation.launcher in need.launchers)
        and (not need.plugins or any(fnmatchcase(situation.plugin, glob) for glob in need.plugins))
        and (unread or within(part.version, need.versions))
        and within(situation.server, need.servers)
        and _is_sharing(need.sharing, situation)
        and (not need.lacks or need.lacks not in part.features)
        and (not need.tmp_hidden or situation.tmp_hidden)
    )


def _is_sharing(sharing: str, situation: Situation) -> bool:
    """Say whether a row for shared or separate user namespaces is for this situation."""
    return not sharing or sharing == ("shared" if situation.shared else "separate")


def _said(settings: Settings, name: str) -> Setting | None:
    """Return the strongest setting that says what a variable is to be, of equals the last; None if none."""
    found = [
        setting
        for kind in KINDS
        for setting in settings.all(kind)
        if (
            fnmatchcase(name, str(setting.value))
            if kind == "unset-env"
            else str(setting.value).startswith(f"{name}=")
        )
    ]
    return max(reversed(found), key=lambda setting: setting.strength, default=None)
