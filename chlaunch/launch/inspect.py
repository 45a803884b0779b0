"""What an image holds that matters to a launch, found by looking at files; nothing in it is executed."""

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from chlaunch.launch import elf, program
from chlaunch.launch.flavour import Flavour, by_name
from chlaunch.launch.image import ENVIRONMENT_FILE, Asked, Image, Part
from chlaunch.launch.loader import Loader, expand, loader
from chlaunch.launch.program import Program
from chlaunch.launch.versions import within
from chlaunch.launch.view import View
from chlaunch.rootfs import Rootfs

# Where distributions and builders put an MPI, besides where the dynamic loader looks: Debian (openmpi/lib),
# RHEL and Fedora (/usr/lib64/openmpi), SUSE (mpi/gcc), HPC-X, Intel's oneAPI, HPE's programming environment,
# Spack and people.
LIBRARY_DIRECTORIES = (
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib/*-linux-*/openmpi/lib",
    "/usr/lib64/openmpi/lib",
    "/usr/lib64/mpich/lib",
    "/usr/lib64/mpi/gcc/*/lib64",
    "/usr/local/*/lib",
    "/opt/*/lib",
    "/opt/*/lib64",
    "/opt/*/*/lib",
    "/opt/intel/oneapi/mpi/*/lib",
    "/opt/cray/pe/mpich/*/ofi/*/*/lib",
    "/opt/cray/pe/lib64",
)

# Where builds that bring everything keep their own, below the directory of the MPI.
PRIVATE_DIRECTORIES = (
    "openmpi",
    "mpich",
    "openmpi/lib",
    "mpi/libfabric",
    "../opt/mpi/libfabric/lib",
    "../libfabric/lib",
)

_LIBRARY = re.compile(r"lib(mpi|mpich|mpi_[a-z0-9_]+|pmix|pmi2?|ucp|fabric|psm2|nccl)\.so\.[0-9]+")
_MPI = re.compile(r"libmpi(ch)?\.so(\.[0-9]+)?")

# An image without a PATH of its own is run with the host's, which names these on every machine.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv64",
    "EM_386": "i686",
    "EM_ARM": "armv7l",
}


def inspect(rootfs: Rootfs, flavours: tuple[Flavour, ...], asked: Asked = Asked()) -> Image:  # noqa: B008  frozen
    """Return what the image holds, and what the command in it speaks; of an unseen one, nothing."""
    if rootfs.unseen:
        return Image(rootfs.path, storage=rootfs.storage, unseen=rootfs.unseen, sealed=rootfs.sealed)
    view = View(rootfs, asked.shown)
    own = _environment(rootfs)
    variables = {**asked.variables, **own}
    search_path = ":".join(filter(None, (variables.get("PATH"), PATH)))
    found_by = loader(view, variables.get("LD_LIBRARY_PATH", ""))
    command = (
        program.program(view, found_by, asked.words, {**variables, "PATH": search_path}, asked.directory)
        if asked.words
        else Program("", "opaque", {})
    )
    known = _Finder(view, found_by, flavours)
    mpis, strange, decided = _mpis(known, command)
    machine, libc = _libc(view, found_by)
    return Image(
        path=rootfs.path,
        mpis=mpis,
        parts=known.parts(mpis, command),
        strange=strange,
        decided=decided,
        plain=not mpis and not strange if decided else _is_plain(command),
        mpirun=_mpirun(view, mpis, search_path),
        machine=MACHINES.get(command.machine or machine, command.machine or machine),
        libc=libc,
        command=command.path,
        scripts=command.scripts,
        has_environment=rootfs.is_file(ENVIRONMENT_FILE),
        storage=rootfs.storage,
        sealed=rootfs.sealed,
    )


@dataclass(frozen=True)
class _Finder:
    """Finds the libraries that tables describe. by_path: what was read already."""

    view: View
    loader: Loader
    flavours: tuple[Flavour, ...]
    by_path: dict[str, Part | None] = field(default_factory=dict)

    def identify(self, name: str, path: str) -> Part | None:
        """Return what the library called name, at path, is; None if no table describes it."""
        real = self.view.locate(path) or path
        if real not in self.by_path:
            self.by_path[real] = self._read(name, real)
        return self.by_path[real]

    def _read(self, name: str, path: str) -> Part | None:
        """Return what a library is by its strings."""
        candidates = [flavour for flavour in self.flavours if flavour.is_named(name)]
        file = self.view.open(path) if candidates else None
        if file is None:
            return None
        with file:
            text = elf.text(file)
            for flavour in candidates:
                if flavour.is_marked(text):
                    features = {
                        feature.name
                        for feature in flavour.features
                        if _holds(file, feature.text) or self._is_beside(path, feature.file)
                    }
                    return Part(flavour, flavour.version(text), path, frozenset(features))
        return None

    def _is_beside(self, path: str, glob: str) -> bool:
        """Say whether there is a file that matches glob below the directory of path."""
        if not glob:
            return False
        directory, _, name = glob.rpartition("/")
        below = f"{path.rpartition('/')[0]}/{directory}"
        return any(re.fullmatch(name.replace("*", ".*"), entry) for entry in self.view.names(below))

    def in_directories(self, directories: list[str]) -> dict[str, str]:
        """Return the libraries in directories that tables describe by name: path to name."""
        found: dict[str, str] = {}
        for directory in dict.fromkeys(directories):
            for name in self.view.names(directory):
                if name.startswith("lib") and _LIBRARY.fullmatch(name):
                    path = f"{directory}/{name}"
                    if self.view.is_file(path):
                        found.setdefault(path, name)
        return found

    def everywhere(self) -> dict[str, str]:
        """Return those of the whole image: path to name."""
        places = [*self.loader.search_path, *self.loader.directories, *expand(self.view, LIBRARY_DIRECTORIES)]
        return self.in_directories(places)

    def parts(self, mpis: tuple[Part, ...], command: Program) -> tuple[Part, ...]:
        """Return what is no MPI, one of each flavour: rather what the command and the MPIs load."""
        paths: dict[str, str] = {path: name for name, path in command.libraries.items() if path}
        for mpi in mpis:
            paths.update({path: name for name, path in self.loader.closure(mpi.path).items() if path})
            above = mpi.path.rpartition("/")[0]
            paths.update(self.in_directories([f"{above}/{below}" for below in PRIVATE_DIRECTORIES]))
        found: dict[str, Part] = {}
        for path, name in {**paths, **self.everywhere()}.items():
            if not any(flavour.is_named(name) and not flavour.mpi for flavour in self.flavours):
                continue
            part = self.identify(name, path)
            if part is not None and not part.flavour.mpi:
                found.setdefault(part.flavour.name, part)
        for mpi in mpis:
            for embedded in mpi.flavour.embeds:
                flavour = by_name(self.flavours, embedded.name)
                if flavour and within(mpi.version, embedded.versions):
                    found.setdefault(flavour.name, Part(flavour, embedded.version, ""))
        return tuple(found.values())


def _mpis(known: _Finder, command: Program) -> tuple[tuple[Part, ...], str, bool]:
    """Return the MPIs the command may use, the name of one no table describes, and whether it is certain."""
    own = {name: path for name, path in command.libraries.items() if _is_mpi(known, name)}
    there = [(name, known.identify(name, path)) for name, path in own.items() if path]
    if there:
        found = tuple(dict.fromkeys(part for _, part in there if part is not None))
        return found, "" if found else there[0][0], True
    static = _static(known, command) if command.kind == "static" else None
    if static is not None:
        return (static,), "", True
    return *_anywhere(known, command, tuple(own)), False


def _anywhere(known: _Finder, command: Program, lacking: tuple[str, ...]) -> tuple[tuple[Part, ...], str]:
    """Return the MPIs of the whole image, and the name of one that no table describes.

    lacking: names of MPI libraries that the command needs and that its loader does not find; whoever sets
    LD_LIBRARY_PATH for it later means one of these, and rather one that was installed with the command.
    """
    found: dict[tuple[str, str], Part] = {}
    strange = ""
    prefix = command.path.rpartition("/bin/")[0]
    everywhere = known.everywhere()
    near = {path: name for path, name in everywhere.items() if prefix and path.startswith(f"{prefix}/lib")}
    for path, name in (near if lacking and near else everywhere).items():
        if not _is_mpi(known, name) or (lacking and name not in lacking):
            continue
        part = known.identify(name, path)
        if part is not None:
            found.setdefault((part.flavour.name, part.version), part)
        else:
            strange = strange or name
    return tuple(found.values()), "" if found else strange


def _is_mpi(known: _Finder, name: str) -> bool:
    """Say whether a library's name is one that an MPI has."""
    return bool(_MPI.fullmatch(name)) or any(
        flavour.mpi and flavour.is_named(name) for flavour in known.flavours
    )


def _static(known: _Finder, command: Program) -> Part | None:
    """Return the MPI that is linked into a static program; None if there is none that a table describes."""
    file = known.view.open(command.path)
    if file is None:
        return None
    with file:
        text = elf.text(file)
    for flavour in known.flavours:
        if flavour.mpi and flavour.is_marked(text):
            return Part(flavour, flavour.version(text), command.path)
    return None


def _is_plain(command: Program) -> bool:
    """Say whether the command can't be an MPI program: all that it loads was found, and no MPI in it."""
    if command.kind == "static":
        return True
    return command.kind == "native" and all(command.libraries.values())


def _holds(file: BinaryIO, text: str) -> bool:
    """Say whether a file holds a text anywhere."""
    file.seek(0)
    return text.encode() in file.read(elf.TEXT_MAX)


def _mpirun(view: View, mpis: tuple[Part, ...], search_path: str) -> str:
    """Return how to call the mpirun of the image's one MPI; empty if it has none."""
    if len(mpis) != 1:
        return ""
    mpi = mpis[0]
    prefix = re.sub(r"/lib(64)?(/.*)?$", "", mpi.path.rpartition("/")[0])
    beside = [f"{prefix}/bin"] if prefix not in ("", "/usr") else []
    searched = search_path.split(":")
    for directory in (*beside, *searched, *expand(view, mpi.flavour.programs)):
        for name in mpi.flavour.mpirun:
            if directory.startswith("/") and view.is_file(f"{directory}/{name}"):
                # By name where PATH has it: Open MPI takes an absolute path for --prefix (mpirun(1)).
                return name if directory in searched else f"{directory}/{name}"
    return ""


def _libc(view: View, found_by: Loader) -> tuple[str, str]:
    """Return the machine that the image's C library is for, and its name and version."""
    for directory in found_by.directories:
        for name in view.names(directory):
            if name == "libc.so.6" or re.fullmatch(r"ld-musl-.*\.so\.1", name):
                file = view.open(f"{directory}/{name}")
                if file is None:
                    continue
                with file:
                    headers, text = elf.read_elf(file), elf.text(file)
                musl = name.startswith("ld-musl")
                pattern = rb"\x00(1\.[0-9]+\.[0-9]+)\x00" if musl else rb"release version ([0-9.]+[0-9])"
                version = re.search(pattern, text)
                return (
                    headers.machine if headers else "",
                    f"{'musl' if musl else 'glibc'} {version[1].decode() if version else ''}".rstrip(),
                )
    return "", ""


def _environment(rootfs: Rootfs) -> dict[str, str]:
    """Return the variables of the image's own environment file, NAME=VALUE lines (ch-run(1), --set-env)."""
    lines = rootfs.text(ENVIRONMENT_FILE).splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip("'") for name, _, value in pairs}
