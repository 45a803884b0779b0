"""The one table of what ch-launch takes.

From it come the options of the command line (``--ch-NAME``), their twins in the environment
(``CHLAUNCH_NAME``), the keys of ``[options]`` in configuration files, and what the SPANK plugin registers
(``spank/table.py``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chlaunch.errors import ConfigError, UsageError
from chlaunch.launch.tables import Document, Key

TRUE = ("1", "yes", "true", "on")
FALSE = ("0", "no", "false", "off")

# The same in place of a value, which may be a number.
YES, NO = TRUE[1:], FALSE[1:]

# Who said it, weakest first; the value of a stronger one replaces a weaker one's, and items of lists come
# later, where they win.
OURS, SITE, USER, ENVIRONMENT, COMMAND_LINE = range(5)


@dataclass(frozen=True)
class Option:
    """One row.

    ``flag`` is on where it is given; a ``switch`` also has the form --ch-no-NAME; a ``value`` is one text; an
    ``optional`` one stands for its ``alone`` where no value is given, and can be ``no``; a ``list`` adds up.
    ``native``: it is ch-run's own option of that name. ``configurable``: it may stand in a file. ``form``:
    what a value must look like, and how to say that. ``door``: where alone it may be given, if not at both.
    """

    name: str
    kind: Literal["flag", "switch", "value", "optional", "list"]
    help: str
    metavar: str = ""
    native: bool = False
    configurable: bool = True
    choices: tuple[str, ...] = ()
    form: tuple[str, str] | None = None
    alone: str = ""
    door: Literal["", "ch-launch", "srun"] = ""

    @property
    def variable(self) -> str:
        """Return the name of its twin in the environment."""
        return "CHLAUNCH_" + self.name.upper().replace("-", "_")


NUMBER = (r"[0-9]+", "a number")
PAIR = (r"[^=]+=(.|\n)*", "NAME=VALUE")

OPTIONS = (
    Option(
        "image", "value", "run in this image, instead of the last word before --", "IMAGE", configurable=False
    ),
    Option(
        "launcher",
        "value",
        "start ranks with srun, the host's mpirun, or the image's (guest)",
        "NAME",
        choices=("auto", "srun", "mpirun", "guest"),
        door="ch-launch",
    ),
    Option(
        "mpi",
        "value",
        "wire-up: srun's --mpi=TYPE; auto: what fits the image; none: not an MPI program",
        "TYPE",
    ),
    Option(
        "join",
        "switch",
        "let the ranks of a node share one container (default under srun and mpirun)",
        native=True,
    ),
    Option(
        "join-tag",
        "value",
        "the name by which ranks find each other, if the launcher's is not it",
        "TAG",
        native=True,
    ),
    Option(
        "bind",
        "list",
        "show SRC of the host at DST in the container (default: the same path)",
        "SRC[:DST]",
        native=True,
    ),
    Option("bind-ro", "list", "the same, read-only", "SRC[:DST]", native=True),
    Option(
        "bind-try",
        "list",
        "the same as bind, left out where SRC does not exist; $NAME at its start is a variable of the node",
        "SRC[:DST]",
        native=True,
    ),
    Option(
        "cd", "value", "start in DIR of the container, instead of the working directory", "DIR", native=True
    ),
    Option(
        "home",
        "switch",
        "--ch-home: $HOME at /home/$USER; --ch-no-home: nowhere; default: at its own path",
        native=True,
    ),
    Option(
        "set-env",
        "list",
        "set a variable; $X items of VALUE are expanded on the node",
        "NAME=VALUE|FILE",
        native=True,
    ),
    Option(
        "set-env0",
        "list",
        "the same, FILE with NUL characters in place of line ends",
        "NAME=VALUE|FILE",
        native=True,
    ),
    Option("env", "list", "set a variable to VALUE as it is", "NAME=VALUE", native=True, form=PAIR),
    Option("unset-env", "list", "remove the variables whose names match", "GLOB", native=True),
    Option("env-default", "list", "set a variable unless it is set", "NAME=VALUE", native=True, form=PAIR),
    Option("uid", "value", "user id in the container", "UID", native=True, form=NUMBER),
    Option("gid", "value", "group id in the container", "GID", native=True, form=NUMBER),
    Option("write", "flag", "let the image be written", native=True),
    Option(
        "write-fake",
        "optional",
        "let the image seem writable: what is written goes to memory (no SIZE: up to 12% of it)",
        "SIZE",
        native=True,
        form=(r"[0-9]+[kKmMgG%]?", "a size such as 500m or 20%"),
        alone="12%",
    ),
    Option(
        "write-fake-scope",
        "value",
        "who sees what is written: all ranks of a node (default), or each rank its own",
        "node|rank",
        native=True,
        choices=("node", "rank"),
    ),
    Option("private-tmp", "flag", "an empty /tmp, in place of the host's", native=True),
    Option("no-passwd", "flag", "keep the image's own /etc/passwd and /etc/group", native=True),
    Option(
        "seccomp",
        "flag",
        "privileged system calls succeed without doing anything (for package managers)",
        native=True,
    ),
    Option(
        "storage",
        "value",
        "where images have names (default: $CH_IMAGE_STORAGE, else /var/tmp/$USER.ch)",
        "DIR",
        native=True,
    ),
    Option(
        "cache-dir",
        "value",
        "where all nodes find images that were fetched, besides $XDG_CACHE_HOME/chlaunch/fetched",
        "DIR",
        form=(r"/.*", "an absolute path"),
    ),
    Option("cache-owner", "value", "who else than root and you may own what is there", "USER"),
    Option(
        "stage",
        "optional",
        "copy the image file to the nodes of the job first, into DIR (no DIR: /tmp)",
        "DIR",
        form=(r"/.*", "an absolute path"),
        alone="/tmp",  # noqa: S108  a name there is new, or its file is looked at first
    ),
    Option("fuse-single", "flag", "serve an image file with one thread", native=True),
    Option("device", "list", "let programs use a CDI device of this host", "VENDOR/CLASS=NAME"),
    Option("cdi", "list", "every device of a CDI kind, of a CDI file, or of all files", "KIND|FILE|all"),
    Option("cdi-dirs", "value", "where CDI files are (default: /etc/cdi:/var/run/cdi)", "DIR[:DIR...]"),
    Option("ld-cache", "list", "let programs find the libraries in DIR of the container", "DIR", native=True),
    Option("verbose", "flag", "let ch-run say what it does", native=True),
    Option(
        "site",
        "value",
        "the site's configuration, or one of ours, such as cray-ex, instead of /etc/chlaunch/site.toml",
        "FILE",
        configurable=False,
    ),
    Option("dry-run", "flag", "print the command line that would be run, and stop", configurable=False),
    Option("explain", "flag", "say each decision, its reason and where that was said", configurable=False),
    Option(
        "json",
        "flag",
        "explain as one JSON object (with --ch-dry-run: to stdout, in place of the line)",
        configurable=False,
    ),
    Option(
        "trace",
        "value",
        "write where the time of the launch went: Chrome's trace events, and a picture beside them",
        "FILE",
        configurable=False,
        door="ch-launch",
    ),
    Option("debug", "flag", "where something fails, show where in the program", configurable=False),
    Option("allow-root", "flag", "let root do this too", configurable=False, door="srun"),
)

BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True)
class Setting:
    """A value somebody gave to an option, who (the stronger, the higher), where, and why."""

    value: str | bool
    strength: int
    origin: str
    reason: str = "asked for"


@dataclass(frozen=True)
class Settings:
    """What was said about each option, weakest first."""

    given: Mapping[str, tuple[Setting, ...]]

    def all(self, name: str) -> tuple[Setting, ...]:
        """Return every setting of a list option, weakest first."""
        return self.given.get(name, ())

    def last(self, name: str) -> Setting | None:
        """Return the strongest setting of an option, None if nobody set it."""
        found = self.given.get(name, ())
        return found[-1] if found else None

    def text(self, name: str, default: str = "") -> str:
        """Return the value of a value option; an optional one that was said to be no has none."""
        found = self.last(name)
        return default if found is None or found.value is False else str(found.value)

    def is_on(self, name: str) -> bool:
        """Say whether a flag is on."""
        found = self.last(name)
        return found is not None and found.value is True


def keys() -> tuple[Key, ...]:
    """Return the keys that ``[options]`` of a configuration file may have."""
    kinds = {"flag": "boolean", "switch": "boolean", "value": "text", "optional": "text", "list": "texts"}
    return tuple(
        Key(option.name, kinds[option.kind], option.help) for option in OPTIONS if option.configurable
    )


def from_command_line(given: Mapping[str, object]) -> dict[str, tuple[Setting, ...]]:
    """Return the settings in what click made of the words: None or () where an option was not given."""
    return {
        name: _settings(BY_NAME[name], values, COMMAND_LINE, f"command line (--ch-{name})")
        for name, value in given.items()
        if (values := _as_list(value))
    }


def from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Setting, ...]]:
    """Return the settings in CHLAUNCH_* variables; a list has one value a line, an empty one says nothing.

    Raises:
        UsageError: a flag is neither yes nor no, a number is none, or there is no such choice.

    """
    found = {}
    for option in OPTIONS:
        text = environment.get(option.variable, "")
        if text:
            values = _from_text(option, text)
            found[option.name] = _settings(option, values, ENVIRONMENT, f"environment ({option.variable})")
    return found


def from_document(document: Document, strength: int) -> dict[str, tuple[Setting, ...]]:
    """Return the settings in ``[options]`` of a file that was checked against keys().

    Raises:
        ConfigError: a number is none, or there is no such choice.

    """
    found = {}
    for _, table in document.tables("options"):
        for name, value in table.items():
            where = document.where("options", 0, name)
            try:
                found[name] = _settings(BY_NAME[name], _as_list(value), strength, where)
            except UsageError as error:
                raise ConfigError(f"{where}: {error.message}", error.hint) from error
    return found


def merge(*layers: Mapping[str, tuple[Setting, ...]]) -> Settings:
    """Return all layers, given weakest first, as one."""
    names = {name for layer in layers for name in layer}
    return Settings({name: tuple(item for layer in layers for item in layer.get(name, ())) for name in names})


def _settings(option: Option, values: list[str | bool], strength: int, origin: str) -> tuple[Setting, ...]:
    """Return checked settings."""
    if option.kind == "optional":
        values = [_given_or_alone(option, str(value)) for value in values]
    for value in values:
        _check(option, value, origin)
    return tuple(Setting(value, strength, origin) for value in values)


def _check(option: Option, value: object, origin: str) -> None:
    """Raise UsageError if value is not one that option can have."""
    if option.choices and value not in option.choices:
        raise UsageError(
            f"{option.name} must be one of {', '.join(option.choices)}, not {value}", f"see {origin}"
        )
    if value == "":
        raise UsageError(f"{option.name} is empty", f"see {origin}")
    if option.form and value is not False and not re.fullmatch(option.form[0], str(value)):
        raise UsageError(f"{option.name} must be {option.form[1]}, not {value}", f"see {origin}")


def _given_or_alone(option: Option, text: str) -> str | bool:
    """Return what the value of an optional option means: itself, the option's own for yes, False for no."""
    word = text.strip().lower()
    return option.alone if word in YES else False if word in NO else text


def _as_list(value: object) -> list[str | bool]:
    """Return one value or several as a list; empty for None."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [value if isinstance(value, bool) else str(value)]


def _from_text(option: Option, text: str) -> list[str | bool]:
    """Return what the text of an environment variable means for option."""
    if option.kind == "list":
        return [line for line in text.splitlines() if line]
    if option.kind in ("value", "optional"):
        return [text]
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise UsageError(f"{option.variable} must be yes or no, not {text}")
    return [word in TRUE]
