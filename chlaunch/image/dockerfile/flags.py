"""The flags of instructions: which there are, and their values."""

from chlaunch.image.dockerfile.lines import Statement
from chlaunch.image.dockerfile.place import nearest

ONE, MANY, SWITCH = "one value", "values", "true or false"

COPYING = {"chown": ONE, "chmod": ONE, "link": SWITCH, "exclude": MANY}

FLAGS = {
    "FROM": {"platform": ONE, "arg": MANY},  # --arg=NAME=VALUE is Charliecloud's: an ARG of the stage
    "RUN": {"mount": MANY, "network": ONE, "security": ONE},
    "COPY": {"from": ONE, "parents": SWITCH, **COPYING},
    "ADD": {"checksum": ONE, "keep-git-dir": SWITCH, "unpack": SWITCH, **COPYING},
    "HEALTHCHECK": {
        "interval": ONE,
        "timeout": ONE,
        "start-period": ONE,
        "start-interval": ONE,
        "retries": ONE,
    },
}


def read(statement: Statement) -> dict[str, list[str]]:
    """Return the values of a statement's flags by name; a switch without a value is "true".

    Raises:
        BuildError: an unknown flag, one twice, one without its value.

    """
    known = FLAGS.get(statement.name, {})
    found: dict[str, list[str]] = {}
    for flag in statement.flags:
        name, equals, value = flag.text[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise statement.place.wrong(
                f"{statement.name} has no --{name}", flag.offset, _known(name, statement.name, known)
            )
        if name in found and kind != MANY:
            raise statement.place.wrong(f"--{name} a second time", flag.offset)
        if not equals and kind != SWITCH:
            raise statement.place.wrong(
                f"--{name} has no value", flag.offset, f"--{name}=VALUE, without blanks"
            )
        if kind == SWITCH:
            value = value.lower() if equals else "true"
            if value not in ("true", "false"):
                raise statement.place.wrong(f"--{name} is true or false", flag.offset)
        found.setdefault(name, []).append(value)
    return found


def _known(name: str, instruction: str, known: dict[str, str]) -> str:
    """Return what to say to somebody who gave a flag that there is not."""
    near = nearest(name, known)
    if near:
        return f"did you mean --{near}?"
    if known:
        return f"{instruction} has {', '.join(f'--{flag}' for flag in known)}"
    return f"{instruction} has no flags; -- before the arguments ends them"
