"""What an image holds that matters to a launch, found by looking at files; nothing in it is executed."""

import re
from dataclasses import dataclass
from fnmatch import filter as matching

from chlaunch.launch.flavour import Flavour
from chlaunch.rootfs import Rootfs

# Where the dynamic loader looks without being told (ld.so(8)), Debian's multiarch directories, and where
# distributions and builders put an MPI: Debian (openmpi/lib), RHEL and Fedora (/usr/lib64/openmpi), SUSE
# (mpi/gcc), HPC-X and people.
LIBRARY_DIRECTORIES = (
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib/*-linux-*",
    "/usr/lib64",
    "/usr/lib",
    "/lib/*-linux-*",
    "/lib64",
    "/lib",
    "/usr/lib/*-linux-*/openmpi/lib",
    "/usr/lib64/openmpi/lib",
    "/usr/lib64/mpi/gcc/*/lib64",
    "/usr/local/*/lib",
    "/opt/*/lib",
    "/opt/*/lib64",
    "/opt/*/*/lib",
)

# The libraries of the MPIs we have heard of: Open MPI and the MPICH family, with HPE's and Debian's names for
# it.
_LIBRARY = re.compile(r"libmpi(ch|_cray|_gnu_[0-9]+)?\.so\.[0-9]+")

# An image without a PATH of its own is run with the host's, which names these on every machine.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ENVIRONMENT_FILE = "/ch/environment"


@dataclass(frozen=True)
class Image:
    """What was found. library: the MPI library's name, or empty; flavour: None if no file describes it.

    mpirun: the flavour's mpirun inside the image, a name if the image's PATH has it, else a path; empty if
    there is none. storage: where path is a name. unseen: what kind of image it is that can't be looked into.
    sealed: what kind it is that can't be written to.
    """

    path: str
    library: str = ""
    flavour: Flavour | None = None
    version: str = ""
    mpirun: str = ""
    has_environment: bool = False
    storage: str | None = None
    unseen: str = ""
    sealed: str = ""

    @property
    def speaks(self) -> str:
        """Return the name of its MPI for people: flavour and release series, else the library."""
        if self.unseen:
            return f"what can't be seen: it is {self.unseen}"
        if self.flavour is None:
            return f"an MPI we have no description of ({self.library})" if self.library else "no MPI"
        return f"{self.flavour.title} {self.version}".rstrip()


def inspect(rootfs: Rootfs, flavours: tuple[Flavour, ...]) -> Image:
    """Return what the image holds; of several MPIs, one that a flavour describes, else the first found.

    In an image that can't be looked into nothing is found.
    """
    environment = _environment(rootfs)
    found = _libraries(rootfs, environment.get("LD_LIBRARY_PATH", ""))
    flavour = next((flavour for flavour in flavours if flavour.library in found), None)
    library = flavour.library if flavour else next(iter(found), "")
    return Image(
        path=rootfs.path,
        library=library,
        flavour=flavour,
        version=flavour.version(found[library]) if flavour else "",
        mpirun=_mpirun(rootfs, flavour.programs if flavour else (), environment.get("PATH", PATH)),
        has_environment=rootfs.is_file(ENVIRONMENT_FILE),
        storage=rootfs.storage,
        unseen=rootfs.unseen,
        sealed=rootfs.sealed,
    )


def _libraries(rootfs: Rootfs, search_path: str) -> dict[str, str]:
    """Return the MPI libraries in the image: name to the name of the file it leads to."""
    found: dict[str, str] = {}
    listed = [
        line.strip()
        for name in rootfs.names("/etc/ld.so.conf.d")
        if name.endswith(".conf")
        for line in rootfs.text(f"/etc/ld.so.conf.d/{name}").splitlines()
    ]
    told = [path for path in (*search_path.split(":"), *listed) if path.startswith("/")]
    for directory in dict.fromkeys([*told, *expand(rootfs, LIBRARY_DIRECTORIES)]):
        for name in rootfs.names(directory):
            if name not in found and name.startswith("libmpi") and _LIBRARY.fullmatch(name):
                there = rootfs.locate(f"{directory}/{name}")
                if there is not None:
                    found[name] = there.rpartition("/")[2]
    return found


def _mpirun(rootfs: Rootfs, directories: tuple[str, ...], search_path: str) -> str:
    """Return how to call the image's mpirun; empty if it has none."""
    searched = search_path.split(":")
    for directory in (*searched, *expand(rootfs, directories)):
        if directory.startswith("/") and rootfs.is_file(f"{directory}/mpirun"):
            # By name where PATH has it: Open MPI takes an absolute path for --prefix (mpirun(1)).
            return "mpirun" if directory in searched else f"{directory}/mpirun"
    return ""


def expand(rootfs: Rootfs, globs: tuple[str, ...]) -> list[str]:
    """Return the directories in the image that match globs; ``*`` stands for one name or part of one."""
    found = []
    for glob in globs:
        paths = [""]
        for part in glob.strip("/").split("/"):
            paths = [
                f"{path}/{name}"
                for path in paths
                for name in (matching(rootfs.names(path or "/"), part) if "*" in part else [part])
            ]
        found.extend(paths)
    return found


def _environment(rootfs: Rootfs) -> dict[str, str]:
    """Return the variables of the image's own environment file, NAME=VALUE lines (ch-run(1), --set-env)."""
    lines = rootfs.text(ENVIRONMENT_FILE).splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip("'") for name, _, value in pairs}
