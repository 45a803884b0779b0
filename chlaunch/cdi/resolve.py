"""From what a user asked for to the edits of a container: which files there are, and which of their devices.

Later directories win over earlier ones, device by device; two files of one directory that both describe a
device are a conflict, which matters to those only who ask for it (SPEC.md and pkg/cdi/cache.go of
https://github.com/cncf-tags/container-device-interface).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chlaunch.cdi import document, spec
from chlaunch.cdi.document import shown
from chlaunch.cdi.spec import ContainerEdits, Device, Spec
from chlaunch.errors import CdiError, UsageError

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
VARIABLE = "CH_RUN_CDI_DIRS"

# More files than this in one directory are not there for people.
FILES_MAX = 1000
# Devices that an error names.
NAMES_MAX = 8
SUFFIXES = (".json", ".yaml")
ALL = "all"


@dataclass(frozen=True)
class Part:
    """Edits; what they are for: a device's full name, or the kind for those of a whole file; and the file."""

    what: str
    file: str
    edits: ContainerEdits


@dataclass(frozen=True)
class Edits:
    """All edits in the order in which they are made. warnings: what the user should hear in any case."""

    parts: tuple[Part, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """What directories hold: devices by full name, those of the last that has any; and files with errors."""

    directories: tuple[str, ...]
    devices: Mapping[str, tuple[tuple[Spec, Device], ...]] = field(default_factory=dict)
    broken: tuple[CdiError, ...] = ()

    def of_kind(self, kind: str) -> list[str]:
        """Return the full names of the devices of a kind, all if kind is empty."""
        return [name for name in self.devices if not kind or name.startswith(f"{kind}=")]


def directories(given: str | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return where to look: as given (A:B), else as $CH_RUN_CDI_DIRS says, else the standard's places."""
    words = given or environment.get(VARIABLE, "")
    return tuple(word for word in words.split(":") if word) or DIRECTORIES


def resolve(requests: Sequence[str | None], directories: Sequence[str]) -> Edits:
    """Return the edits for all requests together; those of a file are made once, before its first device's.

    A request is ``vendor.com/class=name`` (``=all``: every device of the kind, if none has that name),
    ``vendor.com/class``, a path of a file (it begins with / or ., or ends in .json or .yaml), or None for
    everything that the directories hold.

    Raises:
        UsageError: a request is none of these.
        CdiError: there is no such device, two files of one directory have it, or a named file is broken.

    """
    found: dict[tuple[str, str], Part] = {}
    warnings: tuple[str, ...] = ()
    registry: Registry | None = None
    for request in requests:
        if request is not None and _is_file(request):
            named = spec.parse(document.read(request))
            chosen = [(named, device) for device in named.devices]
        else:
            registry = registry or scan(directories)
            warnings = tuple(f"CDI file left out: {error.message}" for error in registry.broken)
            chosen = [_only(registry, name) for name in _names(request, registry)]
        for origin, device in chosen:
            found.setdefault((origin.file, ""), Part(origin.kind, origin.file, origin.edits))
            name = f"{origin.kind}={device.name}"
            found.setdefault((origin.file, name), Part(name, origin.file, device.edits))
    return Edits(tuple(found.values()), warnings)


def scan(directories: Sequence[str]) -> Registry:
    """Return what directories hold; one that is missing holds nothing."""
    devices: dict[str, tuple[tuple[Spec, Device], ...]] = {}
    broken: list[CdiError] = []
    for directory in directories:
        here: dict[str, tuple[tuple[Spec, Device], ...]] = {}
        for file in _files(directory, broken):
            try:
                read = spec.parse(document.read(file))
            except CdiError as error:
                broken.append(error)
                continue
            for device in read.devices:
                name = f"{read.kind}={device.name}"
                here[name] = (*here.get(name, ()), (read, device))
        devices.update(here)
    return Registry(tuple(directories), devices, tuple(broken))


def _files(directory: str, broken: list[CdiError]) -> list[str]:
    """Return the files of a directory that may be CDI's, sorted; what can't be read goes to broken."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(
                entry.name for entry in entries if entry.name.endswith(SUFFIXES) and not entry.is_dir()
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        broken.append(CdiError(f"can't read {directory}: {error.strerror}"))
        return []
    if len(names) > FILES_MAX:
        broken.append(CdiError(f"{directory}: more than {FILES_MAX} files; the first were read"))
    return [f"{directory.rstrip('/')}/{name}" for name in names[:FILES_MAX]]


def _is_file(request: str) -> bool:
    """Say whether a request is a path; Charliecloud knows them by their first character."""
    return request.startswith(("/", ".")) or ("=" not in request and request.endswith(SUFFIXES))


def _names(request: str | None, registry: Registry) -> list[str]:
    """Return the full names of the devices that a request means, at least one."""
    if request is None:
        return registry.of_kind("") or _missing(registry, "")
    kind, equals, name = request.partition("=")
    if not spec.is_kind(kind) or (equals and not spec.is_device_name(name)):
        raise UsageError(
            f"not a CDI device: {shown(request)}",
            "write VENDOR/CLASS=NAME (nvidia.com/gpu=0), VENDOR/CLASS, or the path of a .json or .yaml file",
        )
    if name and request in registry.devices:
        return [request]
    if name in ("", ALL):
        return registry.of_kind(kind) or _missing(registry, request)
    return _missing(registry, request)


def _only(registry: Registry, name: str) -> tuple[Spec, Device]:
    """Return the device of a full name."""
    owners = registry.devices[name]
    if len(owners) > 1:
        files = " and ".join(origin.file for origin, _ in owners)
        raise CdiError(
            f"two files describe CDI device {name}: {files}",
            f"remove one, or name the file: {owners[0][0].file}",
        )
    return owners[0]


def _missing(registry: Registry, request: str) -> list[str]:
    """Raise CdiError for a request (empty: for everything) that nothing answers; say what there is."""
    hints = [f"broken: {error.message}" for error in registry.broken]
    known = registry.of_kind(request.partition("=")[0]) or registry.devices
    if known:
        hints.append(f"there is {_some(request, list(known))}")
    elif not hints:
        hints.append(
            f"a vendor's tool writes the files (nvidia-ctk cdi generate); other directories go in ${VARIABLE}"
        )
    what = f"CDI device {request}" if request else "any CDI device"
    raise CdiError(f"can't find {what} in {':'.join(registry.directories)}", "\n".join(hints))


def _some(request: str, names: list[str]) -> str:
    """Return names as a text; if they are many, those most like request, and how many more there are."""
    import difflib  # noqa: PLC0415  only when there is an error to word

    if len(names) <= NAMES_MAX:
        return ", ".join(names)
    near = difflib.get_close_matches(request, names[:FILES_MAX], n=NAMES_MAX, cutoff=0.5)
    named = [*near, *(name for name in names if name not in near)][:NAMES_MAX]
    return f"{', '.join(named)} and {len(names) - NAMES_MAX} more"
