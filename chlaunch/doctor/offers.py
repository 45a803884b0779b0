"""What can start ranks here: Slurm and its PMIx, the host's mpirun; and what our configuration files say."""

import os
import re
import shutil
from pathlib import Path

from chlaunch import slurm
from chlaunch.doctor import stack
from chlaunch.doctor.rows import Patient, Row, fine, problem, warning
from chlaunch.errors import SlurmError
from chlaunch.launch import context, elf, flavour, launchers, options, site, starter
from chlaunch.launch.image import Image
from chlaunch.launch.loader import headers, loader
from chlaunch.launch.view import View
from chlaunch.rootfs import Rootfs
from chlaunch.slurm import Offer, facts
from chlaunch.slurm.facts import Facts

# A plugin opens its library by this name, or by a path that was compiled in (_libpmix_open in mpi_pmix.c).
_OPENED = re.compile(rb"(?:/[^\x00\n%]*/)?libpmix\.so(?:\.[0-9]+)*")


def cluster(patient: Patient) -> list[Row]:
    """Ask Slurm what it offers."""
    here = context.read(patient.environment)
    fit = next(row for row in launchers.LAUNCHERS if row.name == "srun").fit(here, Image(""))
    if here.srun is None or not fit.usable:
        return [judge_no_slurm(fit.why, broken=here.named_configuration is not None)]
    offer = slurm.offer(here.srun, with_version=True)
    try:
        known = facts.facts(str(Path(here.srun).with_name("scontrol")), patient.environment)
    except SlurmError as error:
        return [
            fine("Slurm", f"{offer.version}, {here.srun}; srun --mpi= takes {', '.join(offer.plugins)}"),
            problem("Slurm controller", error.message, error.hint),
        ]
    behind = {name: pmix_of(name, known, patient) for name in offer.plugins if name.startswith("pmix_v")}
    default = patient.environment.get("SLURM_MPI_TYPE") or known.mpi_default
    return [
        judge_slurm(offer, known),
        judge_plugins(offer, behind),
        judge_default(default, offer),
        fine(
            "Slurm directories",
            f"SlurmdSpoolDir {known.spool}, TmpFS {known.tmp}, PMIx makes its own in {known.pmix_tmp}",
        ),
        *stack.plugin(here.configuration, known),
    ]


def judge_no_slurm(why: str, *, broken: bool) -> Row:
    """Return the row for a host without a Slurm that can be used. broken: there is meant to be one."""
    if broken:
        return problem("Slurm", why, "unset SLURM_CONF, or correct it")
    return fine("Slurm", f"not here: {why}")


def judge_slurm(offer: Offer, known: Facts) -> Row:
    """Return which Slurm there is."""
    said = f"{known.version}, by {known.origin}"
    if offer.version and known.version and offer.version.split(".")[:2] != known.version.split(".")[:2]:
        return warning(
            "Slurm",
            f"{said}, but srun here is {offer.version}",
            "update one of them: a controller serves commands of two or three releases before its own only"
            " (slurm.schedmd.com/upgrades.html)",
        )
    return fine("Slurm", said)


def judge_plugins(offer: Offer, behind: dict[str, str]) -> Row:
    """Return which wire-ups srun has. behind: the PMIx that each versioned one loads, or empty."""
    name = "srun --mpi="
    words = [
        f"{plugin} (PMIx {behind[plugin]})" if behind.get(plugin) else plugin for plugin in offer.plugins
    ]
    said = ", ".join(words)
    missing = [plugin for plugin, version in behind.items() if not version]
    if not any(plugin.startswith("pmix") for plugin in offer.plugins):
        return warning(
            name,
            f"{said}: no pmix, which Open MPI needs from 5.0 on",
            "as root: build Slurm with ./configure --with-pmix (so is Debian's up to 24.11, not its 26.05)",
        )
    if missing:
        return warning(
            name,
            f"{said}: no libpmix found for {', '.join(missing)}",
            "as root, on all nodes: install the PMIx library that it was built with",
        )
    return fine(name, said)


def judge_default(default: str, offer: Offer) -> Row:
    """Return what a plain srun gives its ranks. default: MpiDefault, or the user's SLURM_MPI_TYPE."""
    name = "MpiDefault"
    pmix = any(plugin.startswith("pmix") for plugin in offer.plugins)
    if default in ("", "none") and pmix:
        return warning(
            name,
            "none: under a plain srun, MPI programs become worlds of one rank (ch-launch adds --mpi)",
            "srun --mpi=pmix, or export SLURM_MPI_TYPE=pmix; as root: MpiDefault=pmix in slurm.conf",
        )
    if default and default not in offer.plugins:
        return problem(name, f"{default}, which this srun does not have", f"srun --mpi={offer.plugins[0]}")
    return fine(name, default or "none")


def pmix_of(plugin: str, known: Facts, patient: Patient) -> str:
    """Return the version of the PMIx library that a plugin of Slurm loads here; empty if it is not found."""
    view = View(Rootfs("/"))
    search_path = patient.environment.get("LD_LIBRARY_PATH", "")
    described = flavour.by_name(flavour.load(), "pmix")
    for directory in known.plugin_directories:
        path = f"{directory}/mpi_{plugin}.so"
        file = view.open(path)
        like = headers(view, path)
        if file is None or like is None or described is None:
            continue
        found_by = loader(view, search_path)
        linked = [
            there for name, there in found_by.closure(path).items() if name.startswith("libpmix.so") and there
        ]
        with file:
            opened = [match.decode() for match in _OPENED.findall(elf.text(file))]
        for name in opened:
            there = found_by.find(name, like, found_by.search_path)
            linked += [there[0]] if there else []
        for library in linked:
            opened_library = view.open(library)
            if opened_library is not None:
                with opened_library:
                    return described.version(elf.text(opened_library))
    return ""


def mpirun(patient: Patient) -> list[Row]:
    """Ask the host's mpirun what it is."""
    search_path = patient.environment.get("PATH", os.defpath)
    path = shutil.which("mpirun", path=search_path) or shutil.which("mpiexec", path=search_path)
    if path is None:
        return [fine("mpirun", "none in PATH: ch-launch uses srun, or the image's own")]
    found = starter.starter(path)
    if not found.kind:
        remedy = "ch-launch leaves it alone: srun, or --ch-launcher=guest"
        return [warning("mpirun", f"{path} is neither Open MPI's nor Hydra", remedy)]
    return [fine("mpirun", f"{path} is {found.title}")]


def configuration(patient: Patient) -> list[Row]:
    """Read our configuration files."""
    named = options.merge(options.from_environment(patient.environment)).text("site") or None
    found = site.load(patient.environment, named)
    user = site.user_file(patient.environment)
    files = [named or site.SITE_FILE, str(user) if user else ""]
    there = [path for path in files if path and Path(path).exists()]
    rows = len(found.filesystems) + len(found.unset) + len(found.trees)
    said = f"{', '.join(there)} read" if there else f"no {site.SITE_FILE}, and no file of yours"
    return [fine("configuration", f"{said}; {rows} rows in all")]
