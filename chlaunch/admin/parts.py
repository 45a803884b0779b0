"""What ch-site installs: a row for each part, with its place and what slurm.conf has to say of it."""

import fnmatch
import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chlaunch.admin import places, plugin
from chlaunch.admin.change import Wanted
from chlaunch.admin.places import Root
from chlaunch.errors import ChlaunchError

# Root's own on every distribution, and not in a package's way.
PLUGIN_DIRECTORY = "/usr/local/lib/chlaunch"

CONFIGURATION = "/etc/slurm"

# Written by slurmd and sackd of a configless cluster, and lost again (configless_slurm.html).
FETCHED = "/run/slurm/conf"

# What plugins/epilog sets as PATH: a job's user must not choose ch-run.
EPILOG_PATH = ("/usr/local/bin", "/usr/bin", "/bin")

_INCLUDE = re.compile(r"^\s*include\s+(\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """A file of plugins/ that Slurm runs or reads.

    key, value: what slurm.conf must say; - is its directory.
    """

    part: str
    target: str
    mode: int = 0o644
    key: str = ""
    value: str = ""


SCRIPTS = (
    # cli_filter_lua.c looks for this name beside slurm.conf, and nowhere else.
    Script("cli_filter.lua", "cli_filter.lua", key="CliFilterPlugins", value="cli_filter/lua"),
    # slurm.conf(5), Epilog: a pattern is allowed, and an absolute path is not sent to the nodes.
    Script("epilog", "epilog.d/50-chlaunch", mode=0o755, key="Epilog", value="-/epilog.d/*"),
)

# oci.conf(5) is likewise beside slurm.conf. One for each family of releases, newest first: since 23.02 Slurm
# gives the runtime the command and its environment; before, a helper reads them.
OCI = "oci.conf"
OCI_FAMILIES = ((23, 2), "oci.conf-23.02"), ((0, 0), "oci.conf-22.05")
OCI_HELPER = "oci-ch-run"


@dataclass(frozen=True)
class Request:
    """What the admin asked for.

    configuration, plugin_directory: in the root. source: where plugins/ is, None for ours.

    plugin: the file to install, empty for none. planner: the Python that the plugin starts. ch_run: a path
    that scripts need, where PATH does not lead there. scripts: parts. release: Slurm's, 22.05, for oci.conf.
    """

    configuration: str
    plugin: str
    planner: str
    ch_run: str = ""
    scripts: tuple[str, ...] = ()
    plugin_directory: str = PLUGIN_DIRECTORY
    source: str | None = None
    release: str = ""


def wanted(root: Root, request: Request) -> Iterator[Wanted]:
    """Give the files that are to be there; the plugin before the line that has it loaded.

    Raises:
        ChlaunchError: a part can't be read, or was not installed with this package.

    """
    if request.plugin:
        path = f"{request.plugin_directory}/{plugin.NAME}"
        yield Wanted("plugin", path, _content(Path(request.plugin)))
        yield _line(root, request.configuration, f"optional {path} planner={request.planner}")
    for script in SCRIPTS:
        if script.part in request.scripts:
            content = _content(_source(request.source, script.part))
            if script.part == "epilog":
                content = _with_ch_run(content, request.ch_run)
            yield Wanted(script.part, f"{request.configuration}/{script.target}", content, mode=script.mode)
    if OCI in request.scripts:
        yield from _oci(request)


def _oci(request: Request) -> Iterator[Wanted]:
    """Give the oci.conf for the release of Slurm, and before it the helper that it runs, if it runs one."""
    release = tuple(int(number) for number in request.release.split(".")[:2] if number.isdecimal())
    name = next(name for first, name in OCI_FAMILIES if release >= first)
    content = _content(_source(request.source, name))
    helper = f"{request.plugin_directory}/{OCI_HELPER}"
    named = f"/usr/local/bin/{OCI_HELPER}".encode()
    if named in content:
        text = _content(_source(request.source, OCI_HELPER))
        if request.ch_run and posixpath.dirname(request.ch_run) not in EPILOG_PATH:
            text = text.replace(b'CH_RUN = "ch-run"', f"CH_RUN = {request.ch_run!r}".encode(), 1)
        yield Wanted(OCI_HELPER, helper, text, mode=0o755)
    elif request.ch_run and posixpath.dirname(request.ch_run) not in EPILOG_PATH:
        content = content.replace(b"exec ch-run ", f"exec {shlex.quote(request.ch_run)} ".encode(), 1)
    yield Wanted(OCI, f"{request.configuration}/{OCI}", content.replace(named, helper.encode()))


def _with_ch_run(epilog: bytes, ch_run: str) -> bytes:
    """Return the epilog with ch-run's path in it, where it would not be found by PATH: its own words."""
    if not ch_run or posixpath.dirname(ch_run) in EPILOG_PATH:
        return epilog
    return epilog.replace(b"\nch_run=ch-run\n", f"\nch_run={shlex.quote(ch_run)}\n".encode(), 1)


def _line(root: Root, configuration: str, line: str) -> Wanted:
    """Return where srun is told of the plugin: a file of its own if plugstack.conf includes it, else there.

    No include is added: on configless clusters plugstack.conf is sent to the nodes, but not what it includes.
    """
    stack = _setting(root, configuration, "PlugStackConfig") or f"{configuration}/plugstack.conf"
    text = f"# srun --ch-image; see ch-site(1)\n{line}\n".encode()
    found = places.read(root, stack)
    content = found.content.decode(errors="replace") if found else ""
    beside = posixpath.dirname(stack)
    own = f"{beside}/plugstack.conf.d/chlaunch.conf"
    includes = [posixpath.join(beside, pattern) for pattern in _INCLUDE.findall(content)]
    if any(fnmatch.fnmatchcase(own, pattern) for pattern in includes) and plugin.NAME not in content:
        return Wanted("plugstack", own, text)
    return Wanted("plugstack", stack, text, added=True, mark=plugin.NAME.encode())


def advice(root: Root, request: Request) -> Iterator[str]:
    """Give what the admin has to do by hand, as slurm.conf is never edited here."""
    edited = False
    for script in SCRIPTS:
        if script.part not in request.scripts or not script.key:
            continue
        value = (
            script.value.replace("-", request.configuration, 1) if script.value[0] == "-" else script.value
        )
        there = _setting(root, request.configuration, script.key)
        if any(_covers(one, value) for one in there.split(",")):
            continue
        edited = True
        more = f" (it says {there} now)" if there else ""
        conf = root.shown(f"{request.configuration}/slurm.conf")
        yield f"say in {conf}, on all hosts: {script.key}={value}{more}"
    if edited:
        yield "and then: scontrol reconfigure"
    if request.plugin:
        yield (
            f"{request.plugin_directory}/{plugin.NAME} must be wherever this plugstack.conf is read, on nodes"
            " too; after an update of Slurm: ch-site install again"
        )


def _covers(said: str, value: str) -> bool:
    """Say whether what slurm.conf says is what we need; a pattern may be narrower, or name our file."""
    said = said.strip().strip('"')
    return said == value or (value.endswith("/*") and fnmatch.fnmatchcase(f"{value[:-1]}50-chlaunch", said))


def _setting(root: Root, configuration: str, key: str) -> str:
    """Return what slurm.conf says of a key; empty if nothing. Keys are in any case (slurm.conf(5))."""
    found = places.read(root, f"{configuration}/slurm.conf")
    content = found.content.decode(errors="replace") if found else ""
    said = re.findall(rf"^\s*{key}\s*=\s*([^\s#]+)", content, re.MULTILINE | re.IGNORECASE)
    return said[-1] if said else ""


def _source(directory: str | None, part: str) -> Path:
    """Return the file of plugins/ for a part.

    Raises:
        ChlaunchError: it is not there.

    """
    package = Path(__file__).resolve().parents[1]
    directories = [Path(directory)] if directory else [package / "plugins", package.parent / "plugins"]
    for place in directories:
        if (place / part).is_file():
            return place / part
    raise ChlaunchError(
        f"there is no {part} in {' or '.join(map(str, directories))}", "install chlaunch again, or --from DIR"
    )


def _content(path: Path) -> bytes:
    """Return what a file holds that is to be installed."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ChlaunchError(f"can't read {path}: {error.strerror}") from error
