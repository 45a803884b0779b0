#!/usr/bin/env python3
"""Print spank/options.h: what the plugin registers and leaves alone, from our tables; for make docs."""

import json

from chlaunch.launch.options import OPTIONS, Option
from chlaunch.launch.srun_words import HOST_COMMANDS

HEAD = """\
/* The plugin's options, one row each; written by table.py from chlaunch/launch/options.py: make docs. */
#ifndef CHLAUNCH_SPANK_OPTIONS_H
#define CHLAUNCH_SPANK_OPTIONS_H

/* OFF: its flag's other value. LIST: may be repeated. */
enum kind { FLAG, OFF, VALUE, OPTIONAL, LIST };

/* variable: the twin in the environment. value, help: as srun --help has them. */
struct row {
	const char *name;
	enum kind kind;
	const char *variable;
	const char *value;
	const char *help;
};

/* clang-format off */
static const struct row rows[] = {
"""

TAIL = """\
};

/* Globs: see HOST_COMMANDS in chlaunch/launch/srun_words.py. */
static const char *const host_commands[] = {%s};
/* clang-format on */

#endif
"""

# Where srun's users should read another text.
HELP = {"image": "run the tasks in this image; none: on the host"}


def rows(option: Option) -> list[str]:
    """Return the rows of an option; a switch has two."""
    kind = {"switch": "FLAG"}.get(option.kind, option.kind.upper())
    value = f'"{option.metavar}"' if option.metavar else "NULL"
    text = json.dumps(HELP.get(option.name, option.help))
    found = [f'{{"ch-{option.name}", {kind}, "{option.variable}", {value}, {text}}}']
    if option.kind == "switch":
        found.append(f'{{"ch-no-{option.name}", OFF, "{option.variable}", NULL, "not --ch-{option.name}"}}')
    return found


def header() -> str:
    """Return the text of options.h."""
    lines = [f"\t{row},\n" for option in OPTIONS if option.door != "ch-launch" for row in rows(option)]
    return HEAD + "".join(lines) + TAIL % ", ".join(map(json.dumps, HOST_COMMANDS))


if __name__ == "__main__":
    print(header(), end="")  # noqa: T201  what it is for
