"""The CDI devices of a launch: their files are read once, here, and ranks see plain options only."""

from collections.abc import Mapping
from dataclasses import dataclass

from chlaunch.cdi import render, resolve
from chlaunch.cdi.hooks import CUDA_COMPAT
from chlaunch.cdi.render import Omission, Plain
from chlaunch.launch.container import Bind, VariableChange
from chlaunch.launch.options import Settings
from chlaunch.launch.tables import Row
from chlaunch.rootfs import Rootfs

# The word for everything that the directories hold; kinds and paths have a slash, or end in .json or .yaml.
ALL = "all"

# Where NVIDIA's images have libraries for drivers older than their CUDA (cmd/nvidia-cdi-hook/cudacompat of
# https://github.com/NVIDIA/nvidia-container-toolkit).
COMPAT = "/usr/local/cuda/compat"


@dataclass(frozen=True)
class Devices:
    """What devices need of a container, and why. rows: of what has no words; notes: for the user."""

    binds: tuple[tuple[Bind, Row], ...] = ()
    variables: tuple[tuple[VariableChange, Row], ...] = ()
    ld_cache: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def gather(settings: Settings, environment: Mapping[str, str], rootfs: Rootfs) -> Devices:
    """Return what the devices asked for need, by the files and the device files of this host.

    Raises:
        UsageError: one can't be the name of a device, a kind or a file.
        CdiError: there is no such device, its file is broken, or it can't be done.

    """
    asked = [*settings.all("cdi"), *settings.all("device")]
    if not asked:
        return Devices()
    requests = [None if setting.value == ALL else str(setting.value) for setting in asked]
    directories = resolve.directories(settings.text("cdi-dirs") or None, environment)
    plain = render.plain(resolve.resolve(requests, directories))
    found = from_plain(plain)
    rows = tuple(Row(f"device {setting.value}", "asked for", setting.origin) for setting in asked)
    notes = tuple(note for omission in plain.omissions for note in _compat(omission, rootfs))
    return Devices(found.binds, found.variables, found.ld_cache, rows + found.rows, found.notes + notes)


def from_plain(plain: Plain) -> Devices:
    """Return plain in the words of a launch. Pure."""
    return Devices(
        binds=tuple(
            (
                Bind(bind.source, bind.target, read_only=bind.read_only),
                Row(f"bind {bind.target}", f"for {bind.why.what}", bind.why.file),
            )
            for bind in plain.binds
        ),
        variables=tuple(
            (
                VariableChange("set", variable.name, variable.value, literal=True),
                Row(f"{variable.name}={variable.value}", f"for {variable.why.what}", variable.why.file),
            )
            for variable in plain.variables
        ),
        ld_cache=tuple(folder.name for folder in plain.ld_cache),
        rows=(
            *(
                Row(f"{seen.name} visible", f"for {seen.why.what}; ch-run shows the host's", seen.why.file)
                for seen in plain.visible
            ),
            *(
                Row(f"ld.so's cache covers {folder.name}", f"for {folder.why.what}", folder.why.file)
                for folder in plain.ld_cache
            ),
            *(
                Row(f"hook {omission.hook} left out", omission.reason, omission.why.file)
                for omission in plain.omissions
            ),
        ),
        notes=plain.warnings,
    )


def _compat(omission: Omission, rootfs: Rootfs) -> tuple[str, ...]:
    """Return a note if the image has NVIDIA's libraries for older drivers, and this driver is older."""
    if omission.hook != CUDA_COMPAT:
        return ()
    words = (word.partition("--host-driver-version=")[2] for word in omission.options)
    driver = max((_major(word) for word in words), default=0)
    libraries = rootfs.names(COMPAT)
    image = max((_major(name.partition("libcuda.so.")[2]) for name in libraries), default=0)
    if not 0 < driver < image:
        return ()
    use = f"--ch-set-env=LD_LIBRARY_PATH={COMPAT}"
    return (f"the image's CUDA is for driver {image}, and the host has {driver}; {use} may help",)


def _major(version: str) -> int:
    """Return the first number of a version, 0 if it is no driver's (the 1 of libcuda.so.1)."""
    major, dot, _ = version.partition(".")
    return int(major) if dot and major.isdecimal() else 0
