"""Ask a command something, with a deadline."""

from collections.abc import Mapping

from chlaunch.errors import SlurmError

INSIST = "say which to use with --mpi=TYPE (srun's) or --ch-mpi=TYPE"


def ask(
    argv: list[str], deadline: float, hint: str = INSIST, environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Return what a command prints to stdout and stderr, whatever its exit code; deadline in seconds.

    hint: what to do where there is no answer in time. environment: the command's, if not ours.

    Raises:
        SlurmError: it could not be run, or took longer.

    """
    import subprocess  # noqa: PLC0415  10 ms that most launches do not need

    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline,
            check=False,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
        )
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{' '.join(argv)} gave no answer in {deadline:g} s", hint) from None
    except OSError as error:
        raise SlurmError(f"can't execute {argv[0]}: {error.strerror}") from error
    return done.stdout, done.stderr
