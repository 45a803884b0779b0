"""What an image speaks, whether it fits this machine, and which launch lines work, in the plan's words."""

import os
import re
from pathlib import Path

from chlaunch.doctor.rows import Patient, Row, fine, problem, warning
from chlaunch.errors import ChlaunchError
from chlaunch.launch import cache, contents, context, flavour, launchers, options, prepare, site
from chlaunch.launch.grammar import Words
from chlaunch.launch.image import Image
from chlaunch.launch.plan import Plan
from chlaunch.rootfs import open_image

# What a processor runs besides its own, as a rule: binfmt_elf with CONFIG_IA32_EMULATION and CONFIG_COMPAT.
ALSO = {"x86_64": ("i686",), "aarch64": ("armv7l",)}

BINFMT = Path("/proc/sys/fs/binfmt_misc")

# Names that qemu-user's packages register, where they are not the machine's.
EMULATORS = {"i686": "i386", "armv7l": "arm"}


def contents_of(patient: Patient) -> list[Row]:
    """Look into the image."""
    image = _inspect(patient)
    rows = [judge_speech(image, patient.command)]
    if image.machine:
        machine = os.uname().machine
        rows.append(judge_machine(image.machine, machine, _emulator(image.machine)))
    if image.libc or image.parts:
        parts = [image.libc, *(part.title for part in image.parts)]
        rows.append(fine("libraries", ", ".join(filter(None, parts))))
    return rows


def _inspect(patient: Patient) -> Image:
    """Return what a launch would find in the image."""
    environment = patient.environment
    twins = options.from_environment(environment)
    found = site.load(environment, options.merge(twins).text("site") or None)
    settings = options.merge(*found.layers, twins)
    rootfs = open_image(patient.image, patient.storage)
    asked = contents.asked(settings, patient.command, context.read(environment), found, None)
    return cache.inspect(rootfs, flavour.load(), asked, environment)


def judge_speech(image: Image, command: tuple[str, ...]) -> Row:
    """Return what the image speaks."""
    name = "MPI"
    if command and not image.unseen and not image.command:
        where = f"{command[0]} is not in the image, nor in what is bound from here"
        return problem(name, where, "give its path in the container")
    if image.unseen:
        return warning(
            name,
            f"can't be seen: it is {image.unseen}",
            "say what it speaks: ch-launch --ch-mpi=pmix for Open MPI, --ch-mpi=pmi2 for MPICH",
        )
    if image.plain:
        return fine(name, f"none: {image.command} uses no MPI")
    if len(image.mpis) > 1:
        remedy = "give the command: ch-doctor IMAGE -- COMMAND" if not command else "ch-launch --ch-mpi=TYPE"
        return warning(name, f"{image.speaks}: which of them is meant can't be told", remedy)
    if image.strange:
        return warning(name, image.speaks, "ch-launch --ch-mpi=TYPE says how to start it: srun --mpi=list")
    by = f", by {image.command}" if image.decided and image.command else ""
    return fine(name, f"{image.speaks}{by}")


def _emulator(machine: str) -> str:
    """Return what binfmt_misc says of the emulator for a machine; empty if there is none that is enabled."""
    entry = BINFMT / f"qemu-{EMULATORS.get(machine, machine)}"
    text = entry.read_text() if entry.is_file() else ""
    return text if text.startswith("enabled") else ""


def judge_machine(machine: str, host: str, emulator: str) -> Row:
    """Return whether programs for machine run on host. emulator: binfmt_misc's entry for it."""
    name = "architecture"
    if machine == host or machine in ALSO.get(host, ()):
        return fine(name, machine)
    if not emulator:
        return problem(
            name,
            f"{machine}, and this is {host}",
            f"get the image for {host}; or as root, to run it slowly: apt install qemu-user-static",
        )
    flags = re.search(r"^flags: (\S*)$", emulator, re.MULTILINE)
    if flags is None or "F" not in flags[1]:
        return problem(
            name,
            f"{machine}, and this is {host}, whose emulator has not flag F: no container sees it",
            "as root: apt install qemu-user-static, which registers it with F",
        )
    return warning(name, f"{machine}, by emulation: slow", f"get the image for {host}")


def lines(patient: Patient) -> list[Row]:
    """Plan a launch without saying by which launcher, and by each that is here."""
    automatic = _plan(patient, "auto")
    taken = ""
    if isinstance(automatic, Plan):
        taken = automatic.reasons[0].value.removeprefix("launcher ")
    here = context.read(patient.environment)
    others = [
        row.name
        for row in launchers.LAUNCHERS
        if row.name != taken and (here.srun or row.name != "srun") and (here.mpirun or row.name != "mpirun")
    ]
    first = judge_line("ch-launch" + (f" takes {taken}" if taken else ""), automatic, needed=True)
    return [
        first,
        *(judge_line(f"--ch-launcher={name}", _plan(patient, name), needed=False) for name in others),
    ]


def _plan(patient: Patient, launcher: str) -> Plan | ChlaunchError:
    """Return the plan for a launch, or why there is none."""
    words = Words((), (), patient.image, patient.command)
    given = {} if launcher == "auto" else {"launcher": launcher}
    try:
        return prepare.prepare(words, given, patient.environment, prepare.Door())[0]
    except ChlaunchError as error:
        return error


def judge_line(name: str, planned: Plan | ChlaunchError, *, needed: bool) -> Row:
    """Return whether a launch would start. needed: it is the one that is taken where nothing else is said."""
    if isinstance(planned, ChlaunchError):
        if needed:
            return problem(name, f"refused: {planned.message}", planned.hint)
        return Row(name, "ok", f"refused: {planned.message}", planned.hint)
    said = _because(planned)
    if planned.notes:
        return warning(
            name, f"{said}; but {'; '.join(planned.notes)}", "see ch-launch --ch-dry-run --ch-explain"
        )
    return fine(name, said)


def _because(planned: Plan) -> str:
    """Return what was decided on launcher and wire-up, and why."""
    launcher, wire = planned.reasons[:2]
    return f"{launcher.reason}; {wire.value}: {wire.reason}"
