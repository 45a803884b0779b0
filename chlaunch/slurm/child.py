"""What is run in a process of its own to ask pyslurm: python3 -I child.py VERSION. Prints one line of JSON.

pyslurm is GPL, is built for one release of Slurm, and where it is not the right one, or libslurm finds no
configuration, that library ends the process. Nothing of ours is imported here.
"""

import json
import sys
from importlib import metadata
from typing import Any

# Names of slurm.conf(5), and those that the two interfaces of pyslurm have for them: attributes of
# slurmctld.Config (from 24.11 on), keys of config().get() (before).
NAMES = {
    "SLURM_VERSION": ("version", "version"),
    "MpiDefault": ("mpi_default", "mpi_default"),
    "PluginDir": ("plugin_dirs", "plugindir"),
    "SlurmdSpoolDir": ("slurmd_spool_directory", "slurmd_spooldir"),
    "TmpFS": ("temporary_filesystem", "tmp_fs"),
}


def main() -> None:
    """Print what the configuration says, or why there is no asking."""
    try:
        found = metadata.version("pyslurm")
    except metadata.PackageNotFoundError:
        answer: dict[str, Any] = {"why": "there is no pyslurm"}
    else:
        wanted = sys.argv[1]
        if release(found) == release(wanted):
            answer = {"version": found, "values": values()}
        else:
            answer = {"why": f"pyslurm {found} is not for Slurm {wanted}"}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


def release(version: str) -> list[int]:
    """Return the two numbers that name a release of Slurm; pyslurm spells 22.05 22.5."""
    return [int(part) for part in version.split(".")[:2] if part.isdecimal()]


def values() -> dict[str, str]:
    """Return what pyslurm says of NAMES."""
    import pyslurm  # noqa: PLC0415  only where it is the right one

    controller: Any = getattr(pyslurm, "slurmctld", None)
    if hasattr(controller, "Config"):
        config = controller.Config.load()
        found = {name: getattr(config, attribute, None) for name, (attribute, _) in NAMES.items()}
        found["PMIxCliTmpDirBase"] = getattr(
            getattr(config, "mpi_config", None), "pmix_cli_tmp_dir_base", None
        )
    else:
        old = pyslurm.config().get()
        found = {name: old.get(key) for name, (_, key) in NAMES.items()}
    return {
        name: ":".join(value) if isinstance(value, list) else str(value)
        for name, value in found.items()
        if value is not None
    }


if __name__ == "__main__":
    main()
