"""srun's words to parts: steps, options, which of them are ours, and where each command begins. Pure.

srun has read its words before the plugin is asked, so they are right; this only has to read them likewise:
getopt_long(3), which stops at the first word that is no option, in every part between two ``:`` words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from chlaunch.errors import UsageError
from chlaunch.launch.options import OPTIONS

# srun's options that take no word after them, which are flags and those whose value must be attached; and
# those that take one. Of Slurm 20.11 to 26.05: srun(1), slurm_opt.c.
_ALONE = """
    async bcast compress consolidate-segments contiguous debugger-test disable-status exact
    exclusive external get-user-env help hold immediate interactive join kill-on-bad-exit label
    launch-cmd multi-prog nice no-allocate no-kill no-rotate oom-kill-step overcommit overlap
    oversubscribe parsable preserve-env preserve-slurm-env propagate pty quiet quit-on-interrupt
    reboot resv-ports send-libs share spread-job spread-segments stepmgr test-only unbuffered
    usage use-min-nodes verbose version wait-for-children whole x11
"""
_VALUED = """
    accel-bind account acctg-freq autocomplete bb bbf bcast-exclude begin chdir cluster
    cluster-constraint clusters comment constraint container container-id container-type context
    core-spec cores-per-socket cpu-bind cpu-freq cpu_bind cpus-per-gpu cpus-per-task deadline
    delay-boot dependency distribution epilog error exclude export extra extra-node-info gid
    gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags het-group
    hint ignore-signals input job-name jobid licenses mail-type mail-user max-exit-timeout
    mcs-label mem mem-bind mem-per-cpu mem-per-gpu mem-update mem_bind mincores mincpus
    minsockets minthreads mpi msg-timeout network nodefile nodelist nodes ntasks ntasks-per-core
    ntasks-per-gpu ntasks-per-node ntasks-per-socket ntasks-per-tres open-mode output pack-group
    partition power prefer priority profile prolog qos relative reservation resources segment
    signal slurmd-debug sockets-per-node spank-job-env switches task-epilog task-prolog
    tasks-per-node thread-spec threads threads-per-core time time-min tmp topology tree-width
    treewidth tres-bind tres-per-job tres-per-task uid wait wckey
"""
ALONE, VALUED = frozenset(_ALONE.split()), frozenset(_VALUED.split())

# The short ones that take none, or only an attached one (slurm_opt.c); the others take one.
SHORT_ALONE = "EhHjklOQRsuvVXZ"
SHORT_ATTACHED = "IK"
SHORT_NAMES = {"D": "chdir", "J": "job-name"}

# Those that a step's plan depends on.
WANTED = ("bcast", "chdir", "container", "interactive", "job-name", "mpi", "multi-prog")

# Commands that an inherited image is not for: the daemons of host launchers, whose ranks enter images by
# themselves, and our own ch-run, with which the planning is done already. Globs.
HOST_COMMANDS = ("ch-run", "orted", "prted", "hydra_*proxy", "pmi_proxy")

_FOLLOWED = {f"ch-{option.name}" for option in OPTIONS if option.kind in ("value", "list")}
_OURS = frozenset(
    {f"ch-{option.name}" for option in OPTIONS}
    | {f"ch-no-{option.name}" for option in OPTIONS if option.kind == "switch"}
)


@dataclass(frozen=True)
class Option:
    """One option as it was given. name: in full, without dashes; words: verbatim."""

    name: str
    value: str | None
    words: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Say whether it is for us, not for srun."""
        return self.name in _OURS


@dataclass(frozen=True)
class Step:
    """What stands between two ``:`` words; a line without has one step."""

    options: tuple[Option, ...]
    command: tuple[str, ...]

    @property
    def is_hosts(self) -> bool:
        """Say whether its command is one of HOST_COMMANDS, or it has none."""
        name = self.command[0].rpartition("/")[2] if self.command else ""
        return not name or any(fnmatchcase(name, pattern) for pattern in HOST_COMMANDS)

    def last(self, name: str) -> Option | None:
        """Return the option of that name that holds; None if it was not given."""
        return next((option for option in reversed(self.options) if option.name == name), None)


def steps(words: list[str], command_at: int = 0) -> list[Step]:
    """Return the steps that srun's words, without its own name, describe.

    command_at: where srun says that the first command begins; 0 if it does not say.

    Raises:
        UsageError: a word can't be told to be an option's value or a command, or an option is abbreviated so
        that it may be another one.

    """
    found: list[Step] = []
    start = 0
    while start < len(words) or not found:
        options, begin = _options(words, start, command_at if start == 0 else 0)
        end = next((at for at in range(begin, len(words)) if words[at] == ":"), len(words))
        found.append(Step(tuple(options), tuple(words[begin:end])))
        start = end + 1
    return found


def _options(words: list[str], start: int, command_at: int) -> tuple[list[Option], int]:
    """Return the options from start on, and where they end."""
    options: list[Option] = []
    at = start
    while at < (command_at or len(words)):
        word = words[at]
        if word == "--":
            return options, at + 1
        if len(word) < 2 or not word.startswith("-"):  # noqa: PLR2004  a dash alone is no option
            _check_end(options, word, command_at)
            return options, at
        found = list(_long(words, at, command_at) if word.startswith("--") else _short(words, at))
        options.extend(found)
        at += max(len(option.words) for option in found)
    return options, at


def _check_end(options: list[Option], word: str, command_at: int) -> None:
    """Raise UsageError where word may as well be the value of the option before it."""
    last = options[-1] if options else None
    if command_at or last is None or last.value is not None or last.name in ALONE | _OURS:
        return
    if last.words[0].startswith("--"):
        raise UsageError(
            f"can't tell whether {word} is the value of {last.words[0]} or a command",
            f"write {last.words[0]}={word}, or -- before the command",
        )


def _long(words: list[str], at: int, command_at: int) -> Iterator[Option]:
    """Give the long option at words[at].

    One that we don't know is another plugin's: what stands before the command and is no option is its value.
    """
    text, equals, value = words[at].removeprefix("--").partition("=")
    name = _in_full(text, words[at])
    unknown = name not in ALONE | VALUED | _OURS
    follows = name in VALUED | _FOLLOWED or (
        unknown and at + 1 < command_at and not words[at + 1].startswith("-")
    )
    if follows and not equals and at + 1 < len(words):
        yield Option(name, words[at + 1], (words[at], words[at + 1]))
    else:
        yield Option(name, value if equals else None, (words[at],))


def _in_full(text: str, word: str) -> str:
    """Return the name that text stands for, which may be an abbreviation; text itself if we know none.

    Raises:
        UsageError: it may stand for one that matters here, and for another.

    """
    known = ALONE | VALUED | _OURS
    if text in known:
        return text
    near = sorted(name for name in known if name.startswith(text))
    if len(near) > 1 and any(name in _OURS or name in WANTED for name in near):
        raise UsageError(
            f"{word} may stand for {' or '.join('--' + name for name in near)}", "write it in full"
        )
    return near[0] if near else text


def _short(words: list[str], at: int) -> Iterator[Option]:
    """Give the short options bundled in words[at], such as -lN2: the last has the words of all."""
    word = words[at]
    for place, letter in enumerate(word[1:], 1):
        name = SHORT_NAMES.get(letter, letter)
        if letter in SHORT_ALONE and place + 1 < len(word):
            continue
        if letter in SHORT_ALONE + SHORT_ATTACHED:
            yield Option(name, None, (word,))
        elif place + 1 < len(word):
            yield Option(name, word[place + 1 :], (word,))
        else:
            yield Option(name, words[at + 1] if at + 1 < len(words) else "", tuple(words[at : at + 2]))
        return
