"""The one table of what ch-image takes: its subcommands, their options, and which function does them."""

import importlib
from dataclasses import dataclass

import click

from chlaunch.cli.asked import Asked


@dataclass(frozen=True)
class Row:
    """A subcommand. deed: module and function below chlaunch.cli; it is loaded when it is wanted."""

    deed: str
    help: str
    parameters: list[click.Parameter]

    def do(self, asked: Asked) -> int:
        """Do it; return the exit code."""
        module, _, function = self.deed.partition(".")
        return int(getattr(importlib.import_module(f"chlaunch.cli.{module}"), function)(asked))


COMMON = (
    click.Option(["-a", "--arch"], metavar="ARCH", help="amd64, arm64/v8, …; host (the default); yolo: any"),
    click.Option(["--always-download"], is_flag=True, help="also what is there already"),
    click.Option(["--auth/--no-auth"], default=None, help="log in also where a registry does not ask"),
    click.Option(["--debug"], is_flag=True, help="show a traceback when something fails"),
    click.Option(["--json"], is_flag=True, help="results and progress as JSON"),
    click.Option(["-q", "--quiet"], count=True, help="only warnings; twice: nothing"),
    click.Option(["-s", "--storage"], metavar="DIR", help="not $CH_IMAGE_STORAGE, not /var/tmp/$USER.ch"),
    click.Option(["--tls-no-verify"], is_flag=True, help="trust any registry: do not"),
    click.Option(["-v", "--verbose"], count=True, help="say more"),
)


LIMITS = (
    click.Option(
        ["--max-size"], type=click.IntRange(1), metavar="GIB", help="a layer may have (default: 512)"
    ),
    click.Option(
        ["--max-members"], type=click.IntRange(1), metavar="N", help="files a layer may have (20000000)"
    ),
)


BUILDING = (
    click.Option(
        ["-b", "--bind"], multiple=True, metavar="SRC[:DST]", help="let RUN see SRC of this host at DST"
    ),
    click.Option(["--build-arg"], multiple=True, metavar="NAME[=VALUE]", help="a value for ARG NAME"),
    click.Option(["--cache"], is_flag=True, help="do no step twice (the default)"),
    click.Option(["--no-cache"], is_flag=True, help="do all steps, and keep nothing for the next build"),
    click.Option(["--rebuild"], is_flag=True, help="do all steps, and keep them"),
    click.Option(
        ["--force"],
        is_flag=False,
        flag_value="seccomp",
        metavar="[seccomp|fakeroot|none]",
        help="how RUN deals with calls that need privilege (default: seccomp: they seem to succeed)",
    ),
    click.Option(
        ["--force-cmd"],
        multiple=True,
        metavar="CMD,ARG[,ARG...]",
        help="in RUN, put ARGs behind the program CMD",
    ),
    click.Option(["-n", "--dry-run"], is_flag=True, help="show the steps, and do none"),
)

CACHE = click.Option(
    ["--cache-dir"], metavar="DIR", help="of fetched images, not $XDG_CACHE_HOME/chlaunch/fetched"
)

COMMANDS: dict[str, Row] = {
    "build": Row(
        "build.build_image",
        "Build an image from a Dockerfile. CONTEXT is what COPY copies from: a directory or URL; -: none.",
        [
            click.Argument(["context"], metavar="CONTEXT", default="."),
            click.Option(["-f", "--file"], metavar="FILE", help="not CONTEXT/Dockerfile; -: standard input"),
            click.Option(
                ["-t", "--tag"], metavar="IMAGE_REF", help="the image's name (default: made of the file's)"
            ),
            click.Option(["--target", "target_stage"], metavar="STAGE", help="stop after this stage"),
            click.Option(
                ["--secret"], multiple=True, metavar="id=ID,src=FILE", help="for RUN --mount=type=secret"
            ),
            click.Option(["--ssh"], multiple=True, metavar="ID[=SOCKET]", help="for RUN --mount=type=ssh"),
            click.Option(["-i", "--interactive"], is_flag=True, help="let RUN read from the terminal"),
            click.Option(
                ["--on-failure"],
                type=click.Choice(["stop", "shell"]),
                help="shell: where RUN failed, start one",
            ),
            click.Option(
                ["--parse-only"], is_flag=True, help="read the Dockerfile, say what is wrong, and stop"
            ),
            *BUILDING,
        ],
    ),
    "build-cache": Row(
        "build.build_cache",
        "Say what builds have kept; or thin it out.",
        [
            click.Option(["--tree"], is_flag=True, help="the steps, each below the one it follows"),
            click.Option(["--dot"], metavar="FILE", help="the same for Graphviz"),
            click.Option(
                ["--gc"], is_flag=True, help="forget steps that no image has, and remove their layers"
            ),
            click.Option(["--reset"], is_flag=True, help="forget all steps"),
        ],
    ),
    "delete": Row(
        "keep.delete",
        "Delete images that match shell patterns; undelete brings them back, until gc.",
        [click.Argument(["globs"], metavar="IMAGE_GLOB...", nargs=-1, required=True)],
    ),
    "du": Row("keep.room", "Say what storage and the cache of fetched images take.", [CACHE]),
    "gc": Row(
        "keep.collect",
        "Remove what no image needs, deleted images for good, and fetched ones that no launch needs.",
        [
            CACHE,
            click.Option(
                ["--unused-days"],
                type=click.IntRange(0),
                default=30,
                metavar="N",
                help="for how long no launch has used it (default: 30; 0: all)",
            ),
        ],
    ),
    "gestalt": Row(
        "keep.gestalt",
        "Say something about ch-image: storage-path, python-path, dependencies.",
        [click.Argument(["what"], type=click.Choice(["storage-path", "python-path", "dependencies"]))],
    ),
    "import": Row(
        "keep.import_image",
        "Make an image of a directory, an archive of files, an OCI layout, or what docker save writes.",
        [
            click.Argument(["path"], metavar="PATH_OR_URL"),
            click.Argument(["image"], metavar="IMAGE_REF"),
            *LIMITS,
        ],
    ),
    "list": Row(
        "keep.show",
        "List images in storage; of one, say also what its registry has.",
        [
            click.Argument(["image"], metavar="[IMAGE_REF]", required=False),
            click.Option(["-l", "--long"], is_flag=True, help="size, size of its own, platform, age"),
            click.Option(["-u", "--undeletable"], is_flag=True, help="deleted images"),
        ],
    ),
    "login": Row(
        "transfer.login",
        "Keep name and password for a registry (default: Docker Hub), once it has taken them.",
        [
            click.Argument(["registry"], required=False),
            click.Option(["-u", "--username"], metavar="NAME"),
            click.Option(["--password-stdin"], is_flag=True, help="read the password from standard input"),
        ],
    ),
    "logout": Row("transfer.logout", "Forget them.", [click.Argument(["registry"], required=False)]),
    "modify": Row(
        "build.modify",
        "Make DEST from SOURCE by commands, by a script, or in a shell.",
        [
            click.Argument(["source"], metavar="SOURCE"),
            click.Argument(["target"], metavar="DEST"),
            click.Argument(["script"], metavar="[SCRIPT]", required=False),
            click.Option(["-c", "commands"], multiple=True, metavar="CMD", help="run CMD (repeatable)"),
            click.Option(["-i", "--interactive"], is_flag=True, help="run a shell on the terminal"),
            click.Option(["-S", "--shell"], metavar="SHELL", help="which shell (default: /bin/sh)"),
            *BUILDING,
        ],
    ),
    "pull": Row(
        "transfer.pull_image",
        "Bring an image from a registry into storage, under the name DEST if given.",
        [
            click.Argument(["source"], metavar="SOURCE"),
            click.Argument(["target"], metavar="[DEST]", required=False),
            click.Option(
                ["--last-layer"], type=click.IntRange(0), metavar="N", help="only N layers, from the lowest"
            ),
            click.Option(["--parse-only"], is_flag=True, help="say what the reference consists of, and stop"),
            *LIMITS,
        ],
    ),
    "push": Row(
        "transfer.push_image",
        "Bring an image from storage to its registry, or to that of DEST.",
        [
            click.Argument(["source"], metavar="SOURCE"),
            click.Argument(["target"], metavar="[DEST]", required=False),
            click.Option(["--image"], metavar="DIR", help="this directory, not the image in storage"),
        ],
    ),
    "reset": Row("keep.reset", "Remove all of the storage.", []),
    "undelete": Row(
        "keep.undelete",
        "Bring a deleted image back.",
        [click.Argument(["image"], metavar="IMAGE_REF")],
    ),
}
