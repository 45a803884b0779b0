"""What a launch puts into its container: paths of the host, the working directory, variables."""

import os.path
from dataclasses import dataclass
from fnmatch import fnmatchcase

from chlaunch.launch import needs
from chlaunch.launch.container import Bind, VariableChange
from chlaunch.launch.context import Context
from chlaunch.launch.image import ENVIRONMENT_FILE, Asked, Image
from chlaunch.launch.launchers import HERE
from chlaunch.launch.needs import Situation
from chlaunch.launch.options import Setting, Settings
from chlaunch.launch.site import Site
from chlaunch.launch.tables import Row

OURS = "chlaunch"

# Variables by which a command and its libraries are found (program.py).
SEARCHED = ("PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "MPI4PY_LIBMPI")


@dataclass(frozen=True)
class Directory:
    """Where the command starts: None for the root. optional: the root will do where it can't be entered."""

    path: str | None
    optional: bool
    row: Row


def is_below(path: str, tree: str) -> bool:
    """Say whether path is tree or below it; both absolute."""
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def binds(
    settings: Settings, context: Context, site: Site, image: Image, situation: Situation
) -> tuple[tuple[Bind, ...], list[Row]]:
    """Return what is bound, in order, and why. Of two with one target the later holds; the user's is last."""
    entries: list[tuple[Bind | None, Row]] = [
        *(
            (_same_path(row.value), Row(f"bind {row.value}", row.reason, row.origin))
            for row in site.filesystems
        ),
        *(
            (_same_path(path) if path else None, row)
            for path, row in (_home(settings, context), _working_directory(settings, context, site))
        ),
        *(
            (_same_path(row.value), Row(f"bind {row.value}", row.reason, row.origin))
            for row in _needs(context, image, situation)
        ),
        *context.devices.binds,
        *_given_binds(settings, context),
    ]
    last = {bind.target: index for index, (bind, _) in enumerate(entries) if bind}
    kept = [
        entry for index, entry in enumerate(entries) if entry[0] is None or last[entry[0].target] == index
    ]
    return tuple(bind for bind, _ in kept if bind), [row for _, row in kept]


def directory(settings: Settings, context: Context, launchers: str | None) -> Directory:
    """Return where the command starts. launchers: the directory that the launcher's own words ask for."""
    asked = settings.last("cd")
    if asked is not None:
        path = os.path.join(context.directory or "/", str(asked.value))  # noqa: PTH118  pure
        return Directory(path, optional=False, row=Row(f"start in {path}", "asked for", asked.origin))
    if launchers:
        path = os.path.join(context.directory or "/", launchers)  # noqa: PTH118  pure
        return Directory(
            path, optional=True, row=Row(f"start in {path}", "given in the launcher's words", "command line")
        )
    if context.directory in (None, "/"):
        return Directory(None, optional=True, row=Row("start in /", "there is no working directory", HERE))
    path = str(context.directory)
    return Directory(path, optional=True, row=Row(f"start in {path}", "the working directory", HERE))


def variables(
    settings: Settings, context: Context, site: Site, image: Image, situation: Situation
) -> tuple[tuple[VariableChange, ...], list[Row]]:
    """Return the changes to the environment, in order, and why. The later wins: the user's come last."""
    found = [
        (VariableChange("unset", row.value), Row(f"unset {row.value}", row.reason, row.origin))
        for row in site.unset
    ]
    if image.has_environment:
        row = Row("the image's variables", f"it has {ENVIRONMENT_FILE}", image.path)
        found.append((VariableChange("file", "", None), row))
    home, _ = _home(settings, context)
    if home is not None:
        row = Row(f"HOME={home}", "ch-run would say /root or /", OURS)
        found.append((VariableChange("set", "HOME", home), row))
    told, untold = needs.variables(settings, image, situation)
    found.extend(told)
    found.extend(context.devices.variables)
    found.extend(_given_variables(settings, context))
    return tuple(change for change, _ in found), [*(row for _, row in found), *untold]


def asked(
    settings: Settings, words: tuple[str, ...], context: Context, site: Site, launchers: str | None
) -> Asked:
    """Return the command, with what of its surroundings matters to a look for its libraries."""
    variables = {
        name: value
        for name, value in context.variables.items()
        if name in SEARCHED and not any(fnmatchcase(name, row.value) for row in site.unset)
    }
    said: dict[str, str | None] = {}
    for change, _ in _given_variables(settings, context):
        if change.kind == "unset":
            said.update({name: None for name in SEARCHED if fnmatchcase(name, change.name)})
        elif change.name in SEARCHED and (change.kind == "set" or change.name not in variables):
            said[change.name] = change.value
    place = directory(settings, context, launchers).path or "/"
    return Asked(words, variables, said, place, _shown(settings, context, site))


def _shown(settings: Settings, context: Context, site: Site) -> tuple[tuple[str, str], ...]:
    """Return what of the host is seen where; the user's own binds hold."""
    home, _ = _home(settings, context)
    work, _ = _working_directory(settings, context, site)
    shown = {row.value: row.value for row in site.filesystems}
    shown.update({path: path for path in (home, work) if path})
    if not settings.is_on("private-tmp"):
        shown["/tmp"] = context.tmpdir or "/tmp"  # noqa: S108  what ch-run shows there
    shown.update({bind.target: bind.source for bind, _ in _given_binds(settings, context)})
    return tuple(shown.items())


def _home(settings: Settings, context: Context) -> tuple[str | None, Row]:
    """Return the home directory to bind at its own path, None for none, and why."""
    asked = settings.last("home")
    if asked is not None:
        what = "home at /home/$USER" if asked.value is True else "no home"
        return None, Row(what, "asked for", asked.origin)
    if context.home in (None, "/"):
        return None, Row("no home", "$HOME is not a directory here", HERE)
    home = str(context.home)
    if ":" in home:
        return None, Row("no home", f"a path with a colon can't be bound: {home}", OURS)
    return home, Row(f"bind {home}", "the user's home, at its own path, where a node has it", HERE)


def _working_directory(settings: Settings, context: Context, site: Site) -> tuple[str | None, Row]:
    """Return the working directory if it needs a bind of its own, None if not, and why."""
    path = context.directory
    if path in (None, "/"):
        return None, Row("no working directory bound", "it is / or was removed", HERE)
    path = str(path)
    seen = _already_seen(path, settings, context, site)
    if seen is not None:
        return None, seen
    asked = settings.last("home")
    if asked is not None and asked.value is False and context.home and is_below(context.home, path):
        return None, Row(
            "working directory not bound", f"no home was asked for, and {path} shows it", asked.origin
        )
    if ":" in path:
        return None, Row("working directory not bound", f"a path with a colon can't be: {path}", OURS)
    for tree in site.trees:
        if is_below(path, tree.row.value) and not any(is_below(path, other) for other in tree.excepted):
            return None, Row(f"{path} not bound", f"{tree.row.value}: {tree.row.reason}", tree.row.origin)
    return path, Row(f"bind {path}", "the working directory, where a node has it", HERE)


def _already_seen(path: str, settings: Settings, context: Context, site: Site) -> Row | None:
    """Return why the working directory is in the container without a bind of its own, None if it is not."""
    home, row = _home(settings, context)
    if home is not None and is_below(path, home):
        return Row("working directory visible", f"it is below {home}", row.origin)
    for filesystem in site.filesystems:
        if is_below(path, filesystem.value):
            return Row("working directory visible", f"it is below {filesystem.value}", filesystem.origin)
    for bind, given in _given_binds(settings, context):
        if not bind.optional and is_below(path, bind.target):
            return Row("working directory visible", f"it is below {bind.target}", given.origin)
    return _seen_in_tmp(settings, context) if is_below(path, "/tmp") else None  # noqa: S108  the place


def _seen_in_tmp(settings: Settings, context: Context) -> Row:
    """Return why a working directory below /tmp needs no bind, or can't have one.

    ch-run shows $TMPDIR at /tmp, and the host's /tmp only where there is no $TMPDIR (ch-run(1)).
    """
    private = settings.last("private-tmp")
    if private is not None and private.value is True:
        return Row("working directory not bound", "it is in /tmp, and an empty one is wanted", private.origin)
    if context.tmpdir is None or os.path.normpath(context.tmpdir) == "/tmp":  # noqa: S108  the place, not a file
        return Row("working directory visible", "ch-run shows /tmp", OURS)
    return Row(
        "working directory not bound", f"it is in /tmp, where ch-run shows TMPDIR, {context.tmpdir}", OURS
    )


def _given_binds(settings: Settings, context: Context) -> list[tuple[Bind, Row]]:
    """Return the user's own binds: the weaker speaker's first, and what may be missing before the rest."""
    kinds = ("bind-try", "bind-ro", "bind")
    given = [(setting, kind) for kind in kinds for setting in settings.all(kind)]
    given.sort(key=lambda item: item[0].strength)  # a stable sort: the order of kinds stays
    return [
        (
            _given_bind(str(setting.value), kind, context),
            Row(f"{kind} {setting.value}", setting.reason, setting.origin),
        )
        for setting, kind in given
    ]


def _given_bind(text: str, kind: str, context: Context) -> Bind:
    """Return the bind that the user wrote as SRC[:DST]; a relative SRC is one of the working directory."""
    source, _, target = text.partition(":")
    optional = kind == "bind-try"
    if not (optional and source.startswith("$")):  # a variable of the node
        source = os.path.normpath(os.path.join(context.directory or "/", source))  # noqa: PTH118  pure
    return Bind(source, target or source, optional=optional, read_only=kind == "bind-ro")


def _same_path(path: str) -> Bind:
    """Return a bind that a node without the path does without."""
    return Bind(path, path, optional=True)


def _needs(context: Context, image: Image, situation: Situation) -> list[Row]:
    """Return what the image's libraries must see.

    Not a $TMPDIR in /tmp: where ch-run shows it, at /tmp, there is no directory of its name to bind it to.
    """
    rows = needs.binds(image, situation)
    in_tmp = context.tmpdir is not None and is_below(os.path.normpath(context.tmpdir), "/tmp")  # noqa: S108
    return [row for row in rows if not (in_tmp and row.value == "$TMPDIR")]


def is_tmp_hidden(settings: Settings, context: Context) -> bool:
    """Say whether ranks do not see their node's /tmp: they get an empty one, $TMPDIR, or their job's."""
    elsewhere = context.tmpdir is not None and os.path.normpath(context.tmpdir) != "/tmp"  # noqa: S108
    return settings.is_on("private-tmp") or elsewhere or context.job_tmp


def hidden(settings: Settings, context: Context, image: Image, situation: Situation) -> tuple[str, ...]:
    """Return what the user should hear of: the image's MPI needs the /tmp that an empty one hides."""
    elsewhere = context.tmpdir is not None and not is_below(os.path.normpath(context.tmpdir), "/tmp")  # noqa: S108
    if not settings.is_on("private-tmp") or elsewhere:
        return ()
    return tuple(
        f"--ch-private-tmp hides the host's /tmp, and {row.reason}"
        for row in needs.binds(image, situation)
        if row.value == "$TMPDIR"
    )


def _given_variables(settings: Settings, context: Context) -> list[tuple[VariableChange, Row]]:
    """Return the user's own changes: the weaker speaker's first, and of one speaker first what is unset.

    Of two defaults for a variable only the later is kept: ch-run would take the first, the weaker speaker's.
    """
    given = [(setting, kind) for kind in needs.KINDS for setting in settings.all(kind)]
    given.sort(key=lambda item: item[0].strength)  # a stable sort: the order of kinds stays
    last = {_name(setting): setting for setting in settings.all("env-default")}
    return [
        (
            _given_change(setting, kind, context),
            Row(f"{kind} {setting.value}", setting.reason, setting.origin),
        )
        for setting, kind in given
        if kind != "env-default" or last[_name(setting)] is setting
    ]


def _name(setting: Setting) -> str:
    """Return the variable that a NAME=VALUE is about."""
    return str(setting.value).partition("=")[0]


def _given_change(setting: Setting, kind: str, context: Context) -> VariableChange:
    """Return one change as the user wrote it."""
    text = str(setting.value)
    if kind == "unset-env":
        return VariableChange("unset", text)
    name, equals, value = text.partition("=")
    if not equals:  # a file: of the submitting side's working directory, wherever the rank starts
        path = os.path.join(context.directory or "/", text)  # noqa: PTH118  pure
        return VariableChange("file_nul" if kind == "set-env0" else "file", "", path)
    return VariableChange("default" if kind == "env-default" else "set", name, value, literal=kind == "env")
