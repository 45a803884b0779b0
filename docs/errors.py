"""Write chlaunch-errors(7): ``errors.py CH-RUN PAGE [--reworded=CODE ...]``.

``ch-run --errors --json`` and chlaunch/ailments/*.toml are the only sources of what stands in the catalogue. PAGE
remembers: a code that they have no more stays there as retired, and one that says something else than before is
refused, unless it was told that these are the same error in other words.
"""

import argparse
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chlaunch.doctor import ailments
from chlaunch.doctor.ailments import Ailment

HEAD = r""".\" Made by docs/errors.py; change failure.c, chlaunch/ailments or the script, then: make docs
.Dd November 25, 2026
.Dt CHLAUNCH-ERRORS 7
.Os
.Sh NAME
.Nm chlaunch-errors
.Nd what ch-run and others say, and what to do about it
.Sh DESCRIPTION
When
.Xr ch-run 1
can't start a command it says why on one line, and on the next what can be done:
.Bd -literal -offset indent
ch-run[PID]: error: MESSAGE: SUBJECT: REASON (FILE.c:LINE ERRNO NAME)
ch-run[PID]: hint: REMEDY [CH-NNNN]
.Ed
.Pp
The code at the end of the second line names the error for good, whatever becomes of the words; no code is ever given
to another error.
Here they are in order, each with its message, what to do, and the exit code.
.Ql ch-run --errors
prints the same, with tabs, or with
.Fl -json
as JSON.
Longer explanations are in
.Sx SURPRISES .
.Pp
Codes from 1000 on are for what other programs say when they are run in containers:
.Sx MESSAGES OF OTHER PROGRAMS .
.Ql ch-doctor explain
finds them in a message or a whole log, and explains every code.
"""

TAIL = """.Sh SEE ALSO
.Xr ch-doctor 1 ,
.Xr ch-launch 1 ,
.Xr ch-run 1
"""

# What codes from a number on are about.
GROUPS = {
    0: "Anything",
    10: "The image",
    20: "Namespaces",
    30: "Mounts",
    50: "Directory, environment and the image's own command",
    60: "Joining",
    70: "Image files",
    80: "Executing the command",
    91: "Features",
    100: "Hints that end nothing",
}


@dataclass(frozen=True)
class Error:
    """A row of the program's table. exit_code 0: a hint, with which nothing ends."""

    code: str
    exit_code: int
    message: str
    remedy: str

    @property
    def number(self) -> int:
        """Return the code without its letters."""
        return int(self.code.removeprefix("CH-"))


@dataclass(frozen=True)
class Surprise:
    """What users meet and don't expect, in mdoc(7). codes: the errors that it explains."""

    title: str
    codes: tuple[int, ...]
    text: str


SURPRISES = (
    Surprise(
        "Read-only file system",
        (16, 101),
        r"""
Programs that write their logs, PID files or caches below
.Pa /var
or
.Pa /run
fail with this (EROFS), because the image is read-only: ranks on many nodes share it.
Where what they write may vanish, as PID files may,
.Fl -write-fake
catches it in memory.
Where it is wanted later, show a directory of yours at the place:
.Pp
.Dl ch-run --bind=$HOME/log:/var/log/nginx IMAGE \-\- nginx
.Pp
.Pa /tmp
is writable in any case.
Programs that have an option for another directory are best off with it.
""",
    ),
    Surprise(
        "Root may read what its owner may not",
        (),
        r"""
With
.Fl -uid Ns =0
a program can read and change your files even where their mode forbids it to you, such as 000.
This is no hole: you could have changed the mode.
The kernel gives root in a user namespace the capability CAP_DAC_OVERRIDE over files whose owner is mapped in it, and
the only owner that is mapped is you.
Files of anybody else are as closed as before.
Tests that expect
.Ql Permission denied
on files of their own fail for this reason, as they do for the real root; run them without
.Fl -uid .
""",
    ),
    Surprise(
        "ping, sudo, su and mount",
        (102,),
        r"""
Such programs get their rights from a set-user-ID bit or from capabilities of their file.
A container gains no rights, so they run with yours: sudo and su complain about their owner or mode, and ping says
.Ql Operation not permitted
where it wants a raw socket.
There is a kind of socket for ping that needs no rights; an administrator allows it to groups with the sysctl
.Va net.ipv4.ping_group_range ,
and many distributions do.
Other ways to see whether a host is there, such as
.Ql curl
or
.Ql nc -z ,
need no rights at all.
What wants to be root only to install packages is content with
.Fl -uid Ns =0
and
.Fl -seccomp .
""",
    ),
    Surprise(
        "Wildcards mean files of the host",
        (81,),
        r"""
In
.Pp
.Dl ch-run IMAGE \-\- ls /usr/lib/*.so
.Pp
the shell that reads the line looks for the files, on the host, before
.Nm ch-run
is started; what does not exist there stays as it is, with its star.
The same goes for variables, a tilde, and what follows a
.Ql \&>
or
.Ql | .
Quote the whole line and let a shell of the image read it:
.Pp
.Dl ch-run IMAGE \-\- sh -c 'ls /usr/lib/*.so | wc -l'
""",
    ),
    Surprise(
        "Permission denied, though the program is executable",
        (84,),
        r"""
File systems can be mounted noexec, and some sites do that with
.Pa /tmp ,
.Pa /dev/shm ,
.Pa /var/tmp
or home directories.
An image that is a directory there can't be run, and neither can a program that was bound from there:
a container may never do more than the mounts that it was made from.
.Ql findmnt -T FILE
shows the options.
Move the directory, or pack it into a SquashFS file: the file may lie on such a file system, since it is only read.
""",
    ),
    Surprise(
        "A program can't change the group of its terminal",
        (),
        r"""
MATLAB and other programs that make a terminal want it to belong to group tty, number 5.
Only one group is mapped, yours, so
.Xr chgrp 1
of
.Pa /dev/pts/N
fails with
.Ql Invalid argument .
Give your group that number,
.Fl -gid Ns =5 ;
who may use what stays as it was.
""",
    ),
    Surprise(
        "Everything belongs to nobody",
        (),
        r"""
IDs that are not mapped, which is all but yours, are shown as 65534: nobody, nogroup.
So root's files in a directory image look like nobody's, and so do your own other groups in the output of
.Xr id 1 .
Access is decided by the real IDs; your groups give you what they give on the host.
A program that checks that a file belongs to root is content where the image is a SquashFS file, whose files are yours
.Pq with squashfuse before 0.2.0, if it was packed with Ql -all-root ,
and
.Fl -uid Ns =0
calls you root.
""",
    ),
    Surprise(
        "Transport endpoint is not connected",
        (74, 75),
        r"""
The process that serves the image file to the ranks of this node has ended.
If that was before the command was started,
.Nm ch-run
ends with 84; if later, it is too late for an exit code, and the ranks are killed (SIGKILL, which a shell calls 137).
The out-of-memory killer is the usual cause: it counts as the job's, like all that the job starts.
Look for it with
.Xr dmesg 1 ,
or in what the scheduler says of the step, and ask for more memory or start fewer ranks on a node.
Nothing is wrong with the file, and nothing is left behind that would have to be unmounted.
""",
    ),
)


class CatalogueError(Exception):
    """The table and the page contradict each other."""


def escape(text: str) -> str:
    """Return text for a line of mdoc."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain


def known(page: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the messages in a page by their codes: those in use, and those retired."""
    found = re.findall(r'^\.It Sy (CH-\d{4}) No "(.+)"$', page, re.MULTILINE)
    retired = re.findall(r"^\.It (CH-\d{4})\n(.+)$", page, re.MULTILINE)
    return dict(found), dict(retired)


def said(error: Error | Ailment) -> str:
    """Return the words that a code stands for."""
    return error.message if isinstance(error, Error) else error.title


def check(errors: Sequence[Error | Ailment], page: str, reworded: frozenset[str]) -> dict[str, str]:
    """Return the retired codes and what they said.

    Raises:
        CatalogueError: two errors have one code, or one has the code that was another's.

    """
    used, retired = known(page)
    now = {error.code: escape(said(error)) for error in errors}
    if len(now) < len(errors):
        codes = [error.code for error in errors]
        raise CatalogueError(f"given twice: {', '.join(sorted({c for c in codes if codes.count(c) > 1}))}")
    for code, message in now.items():
        if code in retired:
            raise CatalogueError(f"{code} is retired, it said: {retired[code]}")
        if used.get(code, message) != message and code not in reworded:
            raise CatalogueError(
                f"{code} said: {used[code]}; now: {message}. A code is never given to another error; "
                f"if this one has only got other words, say --reworded={code}"
            )
    return {**retired, **{code: message for code, message in used.items() if code not in now}}


def entry(error: Error) -> list[str]:
    """Return the lines of one error."""
    ends = f"Exit code {error.exit_code}." if error.exit_code else "The command is started all the same."
    further = [surprise.title for surprise in SURPRISES if error.number in surprise.codes]
    return [
        f'.It Sy {error.code} No "{escape(error.message)}"',
        *(escape(line) for line in textwrap.wrap(error.remedy, 100, break_on_hyphens=False)),
        ".br",
        ends,
        *(line for title in further for line in ("See", f'.Dq "{title}" .')),
    ]


def others(rows: Sequence[Ailment]) -> list[str]:
    """Return the lines about what other programs say."""
    lines = [
        ".Sh MESSAGES OF OTHER PROGRAMS",
        "Each with what it means, what to do, and the releases that say it.",
    ]
    for name in dict.fromkeys(row.field for row in rows):
        lines += [f".Ss {escape(name)}", ".Bl -tag -width Ds"]
        for row in (row for row in rows if row.field == name):
            lines += [
                f'.It Sy {row.code} No "{escape(row.title)}"',
                *filled(re.sub(r"\{([a-z]+)\}", lambda found: found[1].upper(), row.cause)),
                ".br",
                *filled(re.sub(r"\{([a-z]+)\}", lambda found: found[1].upper(), row.remedy)),
                ".br",
                *filled(f"{row.versions}."),
            ]
        lines += [".El"]
    return lines


def filled(text: str) -> list[str]:
    """Return text in lines of mdoc, each sentence on a line of its own."""
    sentences = re.split(r"(?<=[.!?]) +|(?<=[.!?]\)) +", text)
    wrapped = (textwrap.wrap(one, 100, break_long_words=False, break_on_hyphens=False) for one in sentences)
    return [escape(line) for lines in wrapped for line in lines]


def render(errors: list[Error], retired: dict[str, str], rows: Sequence[Ailment] = ()) -> str:
    """Return the page."""
    lines = [*HEAD.splitlines(), ".Sh CODES"]
    group = None
    for error in sorted(errors, key=lambda error: error.number):
        title = GROUPS[max(start for start in GROUPS if start <= error.number)]
        if title != group:
            lines += [*([".El"] if group else []), f".Ss {title}", ".Bl -tag -width Ds"]
            group = title
        lines += entry(error)
    lines += [".El", *(others(rows) if rows else [])]
    if retired:
        lines += [".Sh CODES OF FORMER VERSIONS", ".Bl -tag -width Ds"]
        lines += [line for code, message in sorted(retired.items()) for line in (f".It {code}", message)]
        lines += [".El"]
    lines += [".Sh SURPRISES"]
    for surprise in SURPRISES:
        lines += [f".Ss {surprise.title}", *surprise.text.strip().splitlines()]
    return "\n".join([*lines, *TAIL.splitlines(), ""])


def ask(ch_run: str) -> list[Error]:
    """Return the table of a ch-run."""
    text = subprocess.run([ch_run, "--errors", "--json"], capture_output=True, check=True, text=True).stdout
    return [Error(row["code"], row["exit"], row["message"], row["remedy"]) for row in json.loads(text)]


def main(words: list[str]) -> int:
    """Write the page anew."""
    parser = argparse.ArgumentParser(description="Write chlaunch-errors(7) anew.")
    parser.add_argument("ch_run", help="the ch-run whose errors they are")
    parser.add_argument("page", type=Path, help="docs/chlaunch-errors.7")
    parser.add_argument("--reworded", action="append", default=[], metavar="CODE")
    given = parser.parse_args(words)
    errors = ask(given.ch_run)
    rows = ailments.load()
    before = given.page.read_text() if given.page.exists() else ""
    try:
        retired = check([*errors, *rows], before, frozenset(given.reworded))
    except CatalogueError as error:
        sys.stderr.write(f"errors.py: {error}\n")
        return 1
    given.page.write_text(render(errors, retired, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
