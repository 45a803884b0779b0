"""The manual pages say what the tables say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machine import CHECKOUT
from matrix import BEGIN, END, GUESTS, STARTERS

from chlaunch.cli import convert, subcommands
from chlaunch.errors import EXIT_CODES
from chlaunch.launch import site
from chlaunch.launch.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

DOCS = CHECKOUT / "docs"


def test_ch_launch_lists_every_option_and_its_twin() -> None:
    text = (DOCS / "ch-launch.1").read_text()
    listed = re.findall(r"^\.It Fl -ch-([a-z0-9-]+)", text, re.MULTILINE)
    ours = [option for option in OPTIONS if option.door != "srun"]
    assert listed == [option.name for option in ours]
    for option in ours:
        if option.kind == "switch":
            assert f".It Fl -ch-{option.name} | -ch-no-{option.name}\n" in text
    twins = re.findall(r"^\.It Ev (CHLAUNCH_\w+)$", text, re.MULTILINE)
    assert twins == [*(option.variable for option in ours), "CHLAUNCH_CH_RUN"]


def test_ch_launch_lists_every_exit_code() -> None:
    text = (DOCS / "ch-launch.1").read_text()
    for code, meaning in EXIT_CODES.items():
        if code:
            assert f".It {code}\n{meaning[0].upper()}{meaning[1:]}.\n" in text


def test_chlaunch_site_lists_every_key() -> None:
    text = (DOCS / "chlaunch-site.5").read_text()
    for part in re.split(r"^\.Ss ", text, flags=re.MULTILINE)[1:]:
        name = part.splitlines()[0].removeprefix("Top level").strip("[]")
        (section,) = (section for section in site.SECTIONS if section.name == name)
        assert re.findall(r"^\.It Ic (\S+) ", part, re.MULTILINE) == [key.name for key in section.keys]
    assert text.count("\n.Ss ") == len(site.SECTIONS)


def test_the_table_in_the_readme() -> None:
    _, _, rest = (CHECKOUT / "README.md").read_text().partition(BEGIN)
    text, _, _ = rest.partition(END)
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in text.strip().splitlines()]
    assert rows[0] == ["", *(starter.title for starter in STARTERS)]
    assert [row[0] for row in rows[2:]] == [guest.title for guest in GUESTS]
    assert {word for row in rows[2:] for word in row[1:]} <= {"ok", "refused", "ok, not joined: refused"}


def test_ch_image_and_ch_convert_list_every_option() -> None:
    """Those of subcommands in the subcommand's line; an operand by its name."""
    text = (DOCS / "ch-image.1").read_text()
    assert undocumented("\n".join(re.findall(r"^\.It Fl .*", text, re.MULTILINE)), subcommands.COMMON) == []
    listed = re.findall(r"^\.It Cm (\S+)(.*)", text, re.MULTILINE)
    assert [name for name, _ in listed] == sorted(subcommands.COMMANDS)
    for name, line in listed:
        assert undocumented(line, subcommands.COMMANDS[name].parameters) == [], name
    text = (DOCS / "ch-convert.1").read_text()
    lines = "\n".join(re.findall(r"^\.It Fl .*|^\.Ar IN OUT$", text, re.MULTILINE))
    assert undocumented(lines, convert.command().params) == []


def undocumented(text: str, parameters: Iterable[click.Parameter]) -> list[str]:
    """Return what lines of mdoc lack: options, operands, and choices."""
    flags = {word for line in text.splitlines() for word in re.findall(r"(?:Fl|,) (-?[\w-]+)", line)}
    lacking = []
    for one in parameters:
        if one.param_type_name == "option":
            names = [name.removeprefix("-") for name in (*one.opts, *one.secondary_opts)]
            lacking += [name for name in names if name not in flags]
        elif not re.search(rf"\b{re.escape(_metavar(one))}", text):
            lacking.append(_metavar(one))
    return lacking


def _metavar(argument: click.Parameter) -> str:
    """Return how an operand is called: by its name, or else by what it may be."""
    choices = getattr(argument.type, "choices", ())
    return " | ".join(choices) or (argument.metavar or str(argument.name).upper()).strip("[].")
