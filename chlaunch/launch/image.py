"""What there is to say of an image that matters to a launch, as plain data; inspect.py finds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chlaunch.launch.flavour import Flavour

# The image's own variables, NAME=VALUE lines (ch-run(1), --set-env).
ENVIRONMENT_FILE = "/ch/environment"


@dataclass(frozen=True)
class Part:
    """A library in the image that a table describes. path: inside; empty where it is built into another."""

    flavour: Flavour
    version: str
    path: str
    features: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """Return its name and version for people."""
        return f"{self.flavour.title} {self.version}".rstrip()


@dataclass(frozen=True)
class Image:
    """What was found.

    mpis: the MPIs that the command may use; one, if its own libraries tell (decided) or the image has but
    one. parts: PMIx, UCX and so on, with what comes with the MPI first. strange: an MPI library that no table
    describes. plain: the command's own libraries tell that it uses no MPI. mpirun: how to call the image's,
    empty if it has none. machine: as uname(1) has it. libc: name and version. storage: where path is a name.
    unseen: what kind of image it is that can't be looked into. sealed: what kind it is that can't be written
    to. command: the path of the program that would run, if it was found; files: what that was told from.
    """

    path: str
    mpis: tuple[Part, ...] = ()
    parts: tuple[Part, ...] = ()
    strange: str = ""
    decided: bool = False
    plain: bool = False
    mpirun: str = ""
    machine: str = ""
    libc: str = ""
    command: str = ""
    files: tuple[str, ...] = ()
    has_environment: bool = False
    storage: str | None = None
    unseen: str = ""
    sealed: str = ""

    @property
    def mpi(self) -> Part | None:
        """Return the MPI, if there is one and only one that may be meant."""
        return self.mpis[0] if len(self.mpis) == 1 else None

    @property
    def speaks(self) -> str:
        """Return the names of its MPIs for people."""
        if self.unseen:
            return f"what can't be seen: it is {self.unseen}"
        if self.mpis:
            return " and ".join(part.title for part in self.mpis)
        return f"an MPI we have no description of ({self.strange})" if self.strange else "no MPI"

    def part(self, name: str) -> Part | None:
        """Return the part of that flavour; None if there is none."""
        return next((part for part in (*self.mpis, *self.parts) if part.flavour.name == name), None)


@dataclass(frozen=True)
class Asked:
    """The command: its words, the variables it will see, and where it starts.

    said: changes to the variables that come after the image's own; None removes one. shown: what it sees of
    the host, path in the container and path on the host.
    """

    words: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, str | None] = field(default_factory=dict)
    directory: str = "/"
    shown: tuple[tuple[str, str], ...] = ()
