"""What can go wrong, as one family of exceptions, and the one table of exit codes.

::

    ChlaunchError        31   something of ours failed
    ├── UsageError       64   the command line or the environment asks for something that makes no sense
    ├── ConfigError      64   a configuration file does; says file and line
    ├── RefusedError      2   nothing fits: refused before anything was launched
    ├── ImageError       31   an image is missing or is not one
    ├── StorageError     31   ch-image's storage can't be used: not ours, full, of another version
    ├── BuildError       31   a Dockerfile makes no sense, or its build failed
    ├── RegistryError    31   a registry refused, broke off, or said what makes no sense
    ├── NativeError      31   our own ch-run is missing or does not work
    ├── SlurmError       31   a question to Slurm got no usable answer
    ├── CdiError         31   a CDI device is missing, its file is broken, or it needs what no user may do
    └── ExecError        49   the launcher could not be executed

Only ``cli/`` words them. Each carries a message (one sentence, what and why) and maybe a hint (what to do).
"""

# The codes of all commands; ch-run's are charliecloud's, whose scripts test for them (ch-run(1), "Exit
# status"). 64 is EX_USAGE of sysexits.h. 2 is free on both sides: neither srun nor Open MPI's mpirun give it
# a meaning.
EXIT_CODES = {
    0: "success",
    2: "nothing fits: refused before launch",
    31: "failure of chlaunch itself",
    49: "the command could not be executed",
    64: "usage: command line, environment or configuration file",
    84: "the FUSE server of the image died",
    87: "the ch-run or the kernel here lacks the feature asked for",
}


class ChlaunchError(Exception):
    """A failure with words for the user.

    Attributes:
        message: one sentence without a full stop: what, and why.
        hint: what to do about it; empty where there is nothing to do.
        exit_code: the status the command ends with; a key of EXIT_CODES.

    """

    exit_code = 31

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the words; nothing is printed here."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ChlaunchError):
    """The command line or the environment asks for something that makes no sense."""

    exit_code = 64


class ConfigError(ChlaunchError):
    """A configuration file is not TOML, or says something we do not know."""

    exit_code = 64


class RefusedError(ChlaunchError):
    """The image and this host do not fit; launching would give a failure, or worse, N worlds of one rank."""

    exit_code = 2


class ImageError(ChlaunchError):
    """An image is missing or is not one."""


class StorageError(ChlaunchError):
    """ch-image's storage can't be used: not ours, full, of another version."""


class BuildError(ChlaunchError):
    """A Dockerfile makes no sense, or its build failed."""


class RegistryError(ChlaunchError):
    """A registry refused, broke off, or said what makes no sense."""


class NativeError(ChlaunchError):
    """Our own ch-run is missing or does not work."""


class SlurmError(ChlaunchError):
    """A question to Slurm got no usable answer."""


class CdiError(ChlaunchError):
    """A CDI device is missing, the file that describes it is broken, or it needs what no user may do."""


class ExecError(ChlaunchError):
    """The launcher could not be executed."""

    exit_code = 49
