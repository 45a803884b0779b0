"""From statements to instructions: each name has its reader here."""

from collections.abc import Callable

from chlaunch.image.dockerfile import checks, flags, forms, grammar, lines, mounts, syntax
from chlaunch.image.dockerfile.command import Command
from chlaunch.image.dockerfile.lines import Statement
from chlaunch.image.dockerfile.place import Place, nearest
from chlaunch.image.dockerfile.scope import check_word

# ONBUILD can't keep these for later.
NOT_LATER = ("ONBUILD", "FROM", "MAINTAINER")

NETWORKS = ("default", "none", "host")
SECURITY = ("sandbox", "insecure")

# Charliecloud's presets of rsync options.
PRESETS = ("m", "l", "u", "z")
# These run programs, or write elsewhere, on the host and not in the image (rsync(1)).
OUTSIDE = (
    "--rsh", "--rsync-path", "--daemon", "--server", "--config", "--log-file", "--write-batch",
    "--only-write-batch", "--temp-dir", "--backup-dir", "--partial-dir",
)  # fmt: skip
OUTSIDE_SHORT = "eT"


def words_of(text: str, rule: str = "words", escape: str = "\\") -> list[str]:
    """Return the words of a text: rule ``words`` splits at blanks, ``quoted_words`` not within quotes."""
    return [piece.text for piece in grammar.tokens(rule, text, escape)] if text else []


def command(statement: Statement, text: str | None = None) -> Command:
    """Return the command that a statement's text is.

    Raises BuildError for an array of other things than strings.
    """
    text = statement.text if text is None else text
    array = _array(statement, text)
    if array is None:
        return Command((text,), for_shell=True, heredocs=statement.heredocs)
    return Command(array, for_shell=False)


def _array(statement: Statement, text: str) -> tuple[str, ...] | None:
    """Return the strings of an exec form, None if text is none."""
    try:
        return forms.exec_form(text)
    except forms.ArrayRefusedError as error:
        raise statement.place.wrong(str(error), text, '["program", "argument"]') from None


def _some(statement: Statement, what: str) -> Place:
    """Return the statement's place. Raises BuildError if it has no arguments."""
    if not statement.text:
        raise statement.place.wrong(f"{statement.name} without {what}", len(statement.place.original))
    return statement.place


def _checked(place: Place, *words: str) -> None:
    """Raise BuildError if one of the words can't have a value whatever variables are."""
    for word in words:
        check_word(word, place)


def _pairs(statement: Statement) -> syntax.Pairs:
    """Return names and values: ``n=v`` each, or the older ``n v`` with a single value, which is the rest."""
    place = _some(statement, "a name and a value")
    words = words_of(statement.text, "quoted_words", place.source.escape)
    if "=" not in words[0]:
        name, *_ = words_of(statement.text)
        value = statement.text[len(name) :].strip(grammar.BLANKS)
        if not value:
            raise place.wrong(f"{name} has no value", name, f"{statement.name} {name[:40]}=VALUE")
        pairs = [(name, value)]
    else:
        lacking = [word for word in words if "=" not in word]
        if lacking:
            hint = f'a value with blanks is in quotes: {statement.name} NAME="a b"'
            raise place.wrong(f"there is no = in {lacking[0]}", lacking[0], hint)
        pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
    for name, value in pairs:
        if not name:
            raise place.wrong("a name is empty", f"={value}")
        _checked(place, name, value)
    return tuple(pairs)


def arg(statement: Statement) -> syntax.Arg:
    """Read ARG."""
    place = _some(statement, "a name")
    pairs: list[tuple[str, str | None]] = []
    for word in words_of(statement.text, "quoted_words", place.source.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise place.wrong("a name is empty", word)
        _checked(place, name, value)
        pairs.append((name, value if equals else None))
    return syntax.Arg(place, tuple(pairs))


def run(statement: Statement) -> syntax.Run:
    """Read RUN."""
    place = _some(statement, "a command")
    found = flags.read(statement)
    made = command(statement)
    if not made.words:
        raise place.wrong("RUN without a command", statement.offset)
    network, security = found.get("network", ["default"])[0], found.get("security", ["sandbox"])[0]
    if network not in NETWORKS:
        raise place.wrong(f"--network={network}", "--network", f"one of {', '.join(NETWORKS)}")
    if security not in SECURITY:
        raise place.wrong(f"--security={security}", "--security", f"one of {', '.join(SECURITY)}")
    mounted = tuple(mounts.read(text, place) for text in found.get("mount", []))
    for mount in mounted:
        _checked(place, mount.text)
        if "$" in mount.origin or ("$" in mount.text and "from=$" in mount.text):
            raise place.wrong("there are no variables in from=", "from=", _NAME_A_STAGE)
    return syntax.Run(place, made, mounted, network, security)


_NAME_A_STAGE = "name a stage by FROM IMAGE AS NAME, where variables are, and say from NAME"


def _sources(statement: Statement) -> tuple[tuple[str, ...], str, tuple[lines.Heredoc, ...]]:
    """Return sources, destination, and the here-documents that are sources."""
    place = _some(statement, "a source and a destination")
    array = _array(statement, statement.text)
    if statement.heredocs:
        pieces = grammar.tokens("shell", statement.text)
        if pieces[-1].kind == "HEREDOC":
            raise place.wrong(
                "a here-document can't be the destination", pieces[-1].offset + statement.offset
            )
        words = tuple(piece.text for piece in pieces if piece.kind != "HEREDOC")
    else:
        words = tuple(words_of(statement.text)) if array is None else array
    if len(words) + len(statement.heredocs) < 2:  # noqa: PLR2004  a source and a destination
        raise place.wrong(
            f"{statement.name} without a destination", len(place.original), "SOURCE... DESTINATION"
        )
    for word in words:
        check_word(
            word, place, f'{statement.name} ["a name with blanks", "DESTINATION"]' if array is None else ""
        )
    return words[:-1], words[-1], statement.heredocs


def copy(statement: Statement) -> syntax.Copy:
    """Read COPY."""
    place = statement.place
    found = flags.read(statement)
    sources, destination, files = _sources(statement)
    origin = found.get("from", [""])[0]
    if "$" in origin:
        raise place.wrong("there are no variables in --from", "--from", _NAME_A_STAGE)
    if "from" in found and not origin:
        raise place.wrong("--from is empty", "--from")
    if origin and files:
        raise place.wrong(
            "a here-document comes from no stage", "--from", "two instructions: one with --from"
        )
    return syntax.Copy(
        place, sources, destination, files, origin, *_owned(place, found),
        link=_switch(found, "link"),
        parents=_switch(found, "parents"),
        excludes=tuple(found.get("exclude", [])),
    )  # fmt: skip


def add(statement: Statement) -> syntax.Add:
    """Read ADD."""
    place = statement.place
    found = flags.read(statement)
    sources, destination, files = _sources(statement)
    checksum = found.get("checksum", [""])[0]
    if checks.is_fixed(checksum):
        checks.checksum(checksum, place)
    if checksum and len(sources) != 1:
        raise place.wrong("--checksum is for one source", "--checksum")
    return syntax.Add(
        place, sources, destination, files, *_owned(place, found),
        link=_switch(found, "link"),
        excludes=tuple(found.get("exclude", [])),
        checksum=checksum,
        keep_git_dir=_switch(found, "keep-git-dir"),
        unpack=_switch(found, "unpack") if "unpack" in found else None,
    )  # fmt: skip


def _owned(place: Place, found: dict[str, list[str]]) -> tuple[str, str]:
    """Return --chown and --chmod."""
    chown, chmod = found.get("chown", [""])[0], found.get("chmod", [""])[0]
    if checks.is_fixed(chmod):
        checks.mode(chmod, place)
    _checked(place, chown, chmod, *found.get("exclude", []))
    return chown, chmod


def _switch(found: dict[str, list[str]], name: str) -> bool:
    """Return the value of a flag that is true or false."""
    return found.get(name, ["false"])[0] == "true"


def rsync(statement: Statement) -> syntax.Rsync:
    """Read RSYNC and NSYNC."""
    place = _some(statement, "a source and a destination")
    words = words_of(statement.text)
    preset = words.pop(0)[1:] if words[0].startswith("+") else ""
    if preset not in ("", *PRESETS):
        raise place.wrong(
            f"+{preset} is no preset", "+", f"one of {', '.join(f'+{name}' for name in PRESETS)}"
        )
    options = []
    while words and words[0].startswith("-"):
        option = words.pop(0)
        long = option.startswith("--")
        if option.partition("=")[0] in OUTSIDE or (
            not long and any(letter in option for letter in OUTSIDE_SHORT)
        ):
            raise place.wrong(f"{option} reaches outside of the image", option)
        options.append(option)
    if len(words) < 2:  # noqa: PLR2004  likewise
        hint = "SOURCE... DESTINATION; options that take a value have it after ="
        raise place.wrong(f"{statement.name} without a destination", len(place.original), hint)
    for word in words:
        if ":" in word.partition("/")[0]:
            raise place.wrong(f"{word} is on another host", word, "only the context can be copied from")
    _checked(place, *options, *words)
    new = statement.name == "NSYNC"
    return syntax.Rsync(place, tuple(words[:-1]), words[-1], preset, tuple(options), new)


def healthcheck(statement: Statement) -> syntax.Healthcheck:
    """Read HEALTHCHECK."""
    place = _some(statement, "CMD or NONE")
    found = {name: values[0] for name, values in flags.read(statement).items()}
    kind = words_of(statement.text)[0]
    rest = statement.text[len(kind) :].strip(grammar.BLANKS)
    if kind.upper() == "NONE":
        if rest or found:
            raise place.wrong("HEALTHCHECK NONE takes no arguments", statement.offset)
        return syntax.Healthcheck(place, None)
    if kind.upper() != "CMD":
        raise place.wrong(
            f"HEALTHCHECK {kind}", statement.offset, "HEALTHCHECK [OPTION...] CMD COMMAND, or NONE"
        )
    made = command(statement, rest)
    if not rest or not made.words:
        raise place.wrong("HEALTHCHECK CMD without a command", len(place.original))
    retries = found.get("retries", "0")
    if not (retries.isascii() and retries.isdigit() and len(retries) < 10):  # noqa: PLR2004  fits in 32 bits
        raise place.wrong(f"--retries={retries} is no number", "--retries")
    times = [
        checks.duration(found.get(name, "0"), place, f"--{name}")
        for name in ("interval", "timeout", "start-period", "start-interval")
    ]
    return syntax.Healthcheck(place, made, times[0], times[1], times[2], times[3], int(retries))


def shell(statement: Statement) -> syntax.Shell:
    """Read SHELL."""
    place = _some(statement, "a shell")
    array = _array(statement, statement.text)
    if not array:
        raise place.wrong("SHELL takes an array of strings", statement.offset, 'SHELL ["/bin/bash", "-c"]')
    return syntax.Shell(place, array)


def expose(statement: Statement) -> syntax.Expose:
    """Read EXPOSE."""
    place = _some(statement, "a port")
    words = words_of(statement.text)
    _checked(place, *words)
    for word in words:
        if checks.is_fixed(word) and not set(word) & set("'\"\\`"):
            checks.port(word, place)
    return syntax.Expose(place, tuple(words))


def volume(statement: Statement) -> syntax.Volume:
    """Read VOLUME."""
    place = _some(statement, "a path")
    array = _array(statement, statement.text)
    paths = tuple(words_of(statement.text)) if array is None else array
    if not paths or not all(path.strip() for path in paths):
        raise place.wrong("a path is empty", statement.offset)
    _checked(place, *paths)
    return syntax.Volume(place, paths)


def one_text(statement: Statement) -> str:
    """Return the text of an instruction that has one value, blanks included."""
    _checked(_some(statement, "a value"), statement.text)
    return statement.text


def stopsignal(statement: Statement) -> syntax.Stopsignal:
    """Read STOPSIGNAL."""
    text = one_text(statement)
    if checks.is_fixed(text) and not set(text) & set("'\"\\`"):
        checks.stop_signal(text, statement.place)
    return syntax.Stopsignal(statement.place, text)


def onbuild(statement: Statement) -> syntax.Onbuild:
    """Read ONBUILD, and what it is to do later."""
    place = _some(statement, "an instruction")
    inner = lines.split(place.rest(statement.offset))
    if inner.name in NOT_LATER:
        raise place.wrong(f"ONBUILD {inner.name} is not allowed", statement.offset)
    bodies = "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in statement.heredocs)
    whole = lines.Statement(
        inner.place, inner.name, inner.flags, inner.text, inner.offset, statement.heredocs
    )
    return syntax.Onbuild(place, statement.text + bodies, instruction(whole))


def _maintainer(statement: Statement) -> syntax.Maintainer:
    """Read MAINTAINER, which is text as it is."""
    return syntax.Maintainer(_some(statement, "a name"), statement.text)


Reader = Callable[[Statement], syntax.Instruction]

READERS: dict[str, Reader] = {
    "ADD": add,
    "ARG": arg,
    "CMD": lambda statement: syntax.Cmd(_some(statement, "a command"), command(statement)),
    "COPY": copy,
    "ENTRYPOINT": lambda statement: syntax.Entrypoint(_some(statement, "a command"), command(statement)),
    "ENV": lambda statement: syntax.Env(statement.place, _pairs(statement)),
    "EXPOSE": expose,
    "HEALTHCHECK": healthcheck,
    "LABEL": lambda statement: syntax.Label(statement.place, _pairs(statement)),
    "MAINTAINER": _maintainer,
    "NSYNC": rsync,
    "ONBUILD": onbuild,
    "RSYNC": rsync,
    "RUN": run,
    "SHELL": shell,
    "STOPSIGNAL": stopsignal,
    "USER": lambda statement: syntax.User(statement.place, one_text(statement)),
    "VOLUME": volume,
    "WORKDIR": lambda statement: syntax.Workdir(statement.place, one_text(statement)),
}


def instruction(statement: Statement) -> syntax.Instruction:
    """Return the instruction of a statement that is no FROM.

    Raises:
        BuildError: there is none of this name, or it does not make sense.

    """
    reader = READERS.get(statement.name)
    if reader is None:
        near = nearest(statement.name, (*READERS, "FROM"))
        hint = f"did you mean {near}?" if near else f"there are FROM, {', '.join(READERS)}"
        raise statement.place.wrong(f"there is no instruction {statement.name[:40]}", 0, hint)
    if statement.flags and statement.name not in flags.FLAGS:
        flags.read(statement)
    return reader(statement)
