"""The planner of the SPANK plugin: ``python -I -m chlaunch.cli.srun SRUN COMMAND_AT WORD...``.

SRUN is the path of the srun that asks, COMMAND_AT the place of the first command's name among its WORDs,
which are all but its own name; 0 if that is not known. What srun shall become goes to file descriptor 3, each
word with a NUL after it: ``run`` and the new words, ``stay`` where there is nothing of ours to do, ``stop``
where all was done. It counts where the exit code is 0; otherwise srun ends with that code, and what was wrong
has been said.
"""

import _thread
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chlaunch import slurm
from chlaunch.cli import shared
from chlaunch.errors import RefusedError, UsageError
from chlaunch.launch import options, prepare, srun_words
from chlaunch.launch.grammar import Words
from chlaunch.launch.options import Settings
from chlaunch.launch.prepare import Door
from chlaunch.launch.srun_words import Option, Step

# As srun words its own.
NAME = "srun"
ANSWER_FD = 3

# Seconds between signs that the planner works.
SIGN_EVERY = 1.0

# A job's own option, which sbatch gives to its steps also where the user's variables are not passed on: those
# that begin so always are (sbatch(1), --export).
PASSED_DOWN = "SLURM_SPANK_"

# In place of an image: the step runs on the host.
NONE = "none"

# What a step can't have, since these programs and files are not the command that srun would see.
IMPOSSIBLE = {
    "multi-prog": "--multi-prog has its commands in a file",
    "bcast": "--bcast copies a program of this host to the nodes",
}


def main() -> None:
    """Answer, and exit."""
    sys.exit(shared.run(NAME, answer, sys.argv[1:]))


def answer(words: list[str], environment: Mapping[str, str]) -> int:
    """Write the answer for an srun.

    Raises:
        ChlaunchError: any of the family.

    """
    srun, command_at, *line = words
    environment = with_passed_down(environment)
    found = []
    for step in srun_words.steps(line, int(command_at)):
        image = image_of(step, srun, environment)
        found.append((step, image))
    if all(image is None and not any(option.is_ours for option in step.options) for step, image in found):
        return _write("stay")
    parts = [_words(step, image, srun, environment) for step, image in found]
    if any(part is None for part in parts):
        return _write("stop")
    joined = [word for part in parts for word in (":", *(part or ()))][1:]
    return _write("run", *joined)


def with_passed_down(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the job's options as twins, where it has none of its own."""
    passed = {
        option.variable: environment[PASSED_DOWN + option.variable]
        for option in options.OPTIONS
        if environment.get(PASSED_DOWN + option.variable)
    }
    return {**passed, **{name: value for name, value in environment.items() if value or name not in passed}}


def image_of(step: Step, srun: str, environment: Mapping[str, str]) -> str | None:
    """Return the image that a step is to run in, and None for the host.

    Raises:
        UsageError: there are two.

    """
    ours, theirs = step.last("ch-image"), step.last("container")
    if theirs and is_sites_own(srun, environment):
        theirs = None
    if ours and ours.value != NONE and theirs:
        raise UsageError(
            f"two images: --ch-image={ours.value} and --container={theirs.value}",
            "they mean the same; give one",
        )
    said = ours or theirs
    if said:
        return None if said.value == NONE or not step.command else said.value or ""
    return _inherited(step, srun, environment)


def is_sites_own(srun: str, environment: Mapping[str, str]) -> bool:
    """Say whether Slurm itself does something about --container here: the site has an oci.conf(5)."""
    configuration = slurm.configuration(srun, environment)
    return configuration is not None and (Path(configuration).parent / "oci.conf").exists()


def _inherited(step: Step, srun: str, environment: Mapping[str, str]) -> str | None:
    """Return the image that the job or the user's variables name; None where they don't."""
    # By this srun salloc starts its shell (LaunchParameters=use_interactive_step): that is the job's script.
    if step.last("interactive") or step.is_hosts:
        return None
    ours = environment.get(options.BY_NAME["image"].variable)
    theirs = environment.get("SLURM_CONTAINER")
    if ours == NONE:
        return None
    if not theirs or is_sites_own(srun, environment):
        return ours or None
    if ours and ours != theirs:
        raise UsageError(
            f"two images: CHLAUNCH_IMAGE is {ours}, and SLURM_CONTAINER is {theirs}",
            "the second is of the job's --container; unset one of them, or say --ch-image",
        )
    return theirs


def _words(
    step: Step, image: str | None, srun: str, environment: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Return the words of a step, None if it was only to be shown.

    Raises:
        ChlaunchError: any of the family.

    """
    if image is None:
        _check_alone(step)
        return (*_others(step.options), *step.command)
    for name, why in IMPOSSIBLE.items():
        if step.last(name) or (name == "bcast" and environment.get("SLURM_BCAST")):
            raise RefusedError(
                f"{why}: that does not go with an image",
                "leave it out, or say --ch-image=none and put ch-run before the program",
            )
    kept = tuple(option for option in step.options if option.name != "container")
    launcher = (*_job_name(step, environment), *_others(kept), *_spelled_out(step, environment))
    given = {**_given(step), "image": image, "launcher": "srun"}

    def fetched(word: str, settings: Settings) -> str:
        with working():
            return shared.fetched(word, settings, environment)

    def staged(path: str, settings: Settings) -> str:
        with working():
            return shared.staged(path, settings, environment)

    plan, settings = prepare.prepare(
        Words((), launcher, None, step.command),
        given,
        environment,
        Door(plugin=srun, fetch=fetched, stage=staged),
    )
    shared.show(NAME, plan, settings)
    return None if settings.is_on("dry-run") else plan.argv[1:]


def _check_alone(step: Step) -> None:
    """Raise UsageError where options of ours are given, and no image is."""
    ours = next((option for option in step.options if option.is_ours), None)
    if ours and step.command and not step.last("ch-image"):
        raise UsageError(f"{ours.words[0]} without an image", "say --ch-image=IMAGE")


def _given(step: Step) -> dict[str, object]:
    """Return our options as prepare() takes them: by name; texts, lists of them, or yes and no."""
    given: dict[str, object] = {}
    for option in step.options:
        if not option.is_ours:
            continue
        name = option.name.removeprefix("ch-")
        if name.startswith("no-") and name not in options.BY_NAME:
            given[name.removeprefix("no-")] = False
            continue
        row = options.BY_NAME[name]
        value = _value(row, option)
        given[name] = [*_list(given.get(name)), value] if row.kind == "list" else value
    return given


def _value(row: options.Option, option: Option) -> str | bool:
    """Return what was given as an option's value."""
    if row.kind in ("flag", "switch"):
        return True
    return row.alone if row.kind == "optional" and option.value is None else option.value or ""


def _list(value: object) -> list[object]:
    """Return the items of a list that may not be there yet."""
    return value if isinstance(value, list) else []


def _others(given: tuple[Option, ...]) -> tuple[str, ...]:
    """Return the words of srun's own options."""
    return tuple(word for option in given if not option.is_ours for word in option.words)


def _job_name(step: Step, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return an option for the name that the job or step would have by itself: its command's, not ch-run.

    The user's option comes after this one; the variable counts outside of jobs only (srun(1), "INPUT
    ENVIRONMENT VARIABLES").
    """
    if environment.get("SLURM_JOB_NAME") and not environment.get("SLURM_JOB_ID"):
        return ()
    name = step.command[0].rpartition("/")[2]
    return (f"--job-name={name}",) if name else ()


def _spelled_out(step: Step, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return options that the plan depends on, in full, where they were abbreviated or in the environment."""
    found = []
    for name in ("chdir", "mpi"):
        option = step.last(name)
        if option and option.words[0].partition("=")[0] != f"--{name}":
            found.append(f"--{name}={option.value}")
    directory = environment.get("SLURM_WORKING_DIR")
    if directory and not step.last("chdir"):
        found.append(f"--chdir={directory}")
    return tuple(found)


@contextmanager
def working() -> Iterator[None]:
    """Tell the plugin, which waits for no silent planner, that this one works (spank/planner.c)."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(SIGN_EVERY):
            try:
                os.write(ANSWER_FD, b"\0")
            except OSError:  # srun has gone
                _thread.interrupt_main()
                return

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _write(*words: str) -> int:
    """Write the answer; return the exit code."""
    with open(ANSWER_FD, "wb", closefd=True) as file:
        file.write(b"".join(os.fsencode(word) + b"\0" for word in words))
    return 0


if __name__ == "__main__":
    main()
