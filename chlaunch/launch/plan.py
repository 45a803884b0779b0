"""From a request and the facts to one command line. Pure and total: no file, environment or clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chlaunch.errors import ImageError, RefusedError, UsageError
from chlaunch.launch import container, contents, needs, wireup
from chlaunch.launch.container import Container, VariableChange
from chlaunch.launch.context import Context
from chlaunch.launch.grammar import value_of
from chlaunch.launch.image import Image
from chlaunch.launch.launchers import Launcher, choose
from chlaunch.launch.needs import Situation
from chlaunch.launch.options import BY_NAME, Settings
from chlaunch.launch.site import Site
from chlaunch.launch.tables import Row
from chlaunch.launch.wireup import WireUp
from chlaunch.slurm import Offer


@dataclass(frozen=True)
class Request:
    """What the user asked for: settings of our options; the launcher's words and the command, verbatim."""

    settings: Settings
    launcher: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """One command line. environment: variables the launcher itself needs, on top of ours.

    reasons: each decision, why, and where that was said. notes: what the user should hear in any case.
    launcher: its name in our table.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    launcher: str = ""

    def line(self) -> str:
        """Return the line that, pasted into a shell, does the same."""
        import shlex  # noqa: PLC0415  most launches print no line

        assignments = [f"{name}={value}" for name, value in sorted(self.environment.items())]
        return shlex.join(["env", *assignments, *self.argv] if assignments else self.argv)


def needs_offer(request: Request, context: Context, image: Image) -> bool:
    """Say whether plan() depends on what srun offers, which takes a process to ask.

    Raises:
        RefusedError: as plan().

    """
    launcher, _ = choose(request.settings, context, image)
    wire = wireup.without_offer(request.settings, _mpi_words(request, launcher), context, image, launcher)
    return wire is None or wireup.needs_server(wire, image)


def plan(request: Request, context: Context, site: Site, image: Image, offer: Offer | None) -> Plan:
    """Return the command line for request. offer may be None where needs_offer() says so.

    Raises:
        RefusedError: no launcher can be used, or the image's MPI fits none of the wire-ups on offer.
        UsageError: the image is to be written, and to seem so.
        ImageError: the image is to be written, and can't be.

    """
    settings = request.settings
    launcher, why = choose(settings, context, image)
    given = _mpi_words(request, launcher)
    wire = wireup.without_offer(settings, given, context, image, launcher) or wireup.best(
        image, offer, context
    )
    if offer and wireup.needs_server(wire, image):
        wire = wireup.heard(wire, image, offer, settings)
    join, join_row = _join(settings, launcher)
    _check_identity(settings, context, image, wire)
    situation = Situation(
        launcher=context.starter.kind if launcher.name == "mpirun" else launcher.name,
        plugin=wire.plugin,
        server=wire.server,
        shared=join or not launcher.outside,
        tmp_hidden=contents.is_tmp_hidden(settings, context),
    )
    _check_situation(settings, image, situation)
    inside, reasons = _container(request, context, site, image, launcher, situation)
    inside = replace(inside, join=join)
    if launcher.outside:
        wanted = (
            _launcher_word(launcher, context),
            *wire.words,
            *request.launcher,
            *_ch_run(request, context, inside),
        )
    else:
        wanted = _ch_run(request, context, inside)
    notes = (
        *wire.notes,
        *context.devices.notes,
        *contents.hidden(settings, context, image, situation),
        *needs.conflicts(settings, context.variables, image, situation),
    )
    return Plan(wanted, {}, (why, wire.row, *reasons, join_row), notes, launcher.name)


def _check_situation(settings: Settings, image: Image, situation: Situation) -> None:
    """Raise RefusedError where the image's MPI is known not to go well like this; users may insist."""
    found = needs.refusal(image, situation) if image.mpi and not image.plain else None
    if found and settings.text("mpi") != "none" and not settings.text("mpi").startswith(wireup.FORCE):
        part, refused = found
        raise RefusedError(
            f"{part.title}, ranks {'joined' if situation.shared else 'not joined'}: {refused.row.reason}",
            f"{refused.remedy}; --ch-mpi={wireup.FORCE}{situation.plugin or 'auto'} tries it all the same",
        )


def _launcher_word(launcher: Launcher, context: Context) -> str:
    """Return how the launcher is called: srun; the host's mpirun, or its mpiexec where that is all it has."""
    return (context.mpirun or "").rpartition("/")[2] if launcher.name == "mpirun" else launcher.name


def _check_identity(settings: Settings, context: Context, image: Image, wire: WireUp) -> None:
    """Raise RefusedError where PMIx would not know its own rank: its server compares user and group IDs."""
    wanted = (_number(settings, "uid"), _number(settings, "gid"))
    changed = wanted[0] not in (None, context.uid) or wanted[1] not in (None, context.gid)
    insisted = settings.text("mpi").startswith(wireup.FORCE)
    if changed and image.mpis and wire.plugin.startswith("pmix") and not insisted:
        raise RefusedError(
            f"--ch-uid and --ch-gid don't go with --mpi={wire.plugin}: ranks tell Slurm's PMIx server the IDs"
            " that they have in the container, and it expects your own",
            "leave them out; --ch-seccomp lets programs think that they are root",
        )


def _container(  # noqa: PLR0913, PLR0917  all of them facts
    request: Request, context: Context, site: Site, image: Image, launcher: Launcher, situation: Situation
) -> tuple[Container, list[Row]]:
    """Return the container every rank enters, and why it is so."""
    settings = request.settings
    binds, bind_rows = contents.binds(settings, context, site, image, situation)
    directory = contents.directory(settings, context, value_of(request.launcher, launcher.directory_options))
    variables, variable_rows = contents.variables(settings, context, site, image, situation)
    write, write_fake = _writing(settings, image)
    command = (
        request.command
        if launcher.outside
        else (image.mpirun or "mpirun", *request.launcher, *request.command)
    )
    found = Container(
        image=image.path,
        storage=image.storage,
        binds=binds,
        directory=directory.path,
        directory_optional=directory.optional,
        uid=_number(settings, "uid"),
        gid=_number(settings, "gid"),
        write=write,
        write_fake=write_fake,
        write_fake_rank=write_fake is not None and settings.text("write-fake-scope") == "rank",
        private_tmp=settings.is_on("private-tmp"),
        home=settings.is_on("home"),
        keep_passwd=settings.is_on("no-passwd"),
        seccomp=settings.is_on("seccomp"),
        fuse_single=settings.is_on("fuse-single"),
        ld_cache=(*context.devices.ld_cache, *(str(setting.value) for setting in settings.all("ld-cache"))),
        variables=(*variables, *_trace_variables(context)),
        join_tag=settings.text("join-tag") or None,
        trace=context.trace,
        command=command,
    )
    return found, [
        *_image_rows(image),
        *bind_rows,
        *context.devices.rows,
        directory.row,
        *variable_rows,
        *_rights_rows(settings),
    ]


def _trace_variables(context: Context) -> tuple[VariableChange, ...]:
    """Return what tells the probe where the end of MPI_Init is wanted to be known."""
    if context.trace is None:
        return ()
    return (VariableChange("set", "CHLAUNCH_TRACE_TO", context.trace, literal=True),)


def _image_rows(image: Image) -> list[Row]:
    """Return what is to be said of an image that is no directory."""
    named = [Row(f"image {image.path}", "a name in storage", image.storage)] if image.storage else []
    unseen = f"it is {image.unseen}: its MPI and its own variables are not known"
    return [*named, *([Row("image not looked into", unseen, image.path)] if image.unseen else [])]


def _writing(settings: Settings, image: Image) -> tuple[bool, str | None]:
    """Say whether the image is written, and how much it may seem to be; the stronger speaker decides.

    Raises:
        UsageError: one speaker wants both.
        ImageError: it can't be written.

    """
    write = _strength(settings, "write") if settings.is_on("write") else -1
    fake = _strength(settings, "write-fake")
    scope = _strength(settings, "write-fake-scope")  # alone, it asks for --ch-write-fake
    size = settings.text("write-fake") or (BY_NAME["write-fake"].alone if scope > fake else "")
    asked = max(fake, scope) if size else -1
    if write >= 0 and write == asked:
        raise UsageError("--ch-write and --ch-write-fake exclude each other", "give one of them")
    if asked > write:
        return False, size
    if write >= 0 and (image.sealed or image.unseen):
        raise ImageError(
            f"can't write to {image.sealed or image.unseen}: {image.path}",
            "use --ch-write-fake for files that may vanish, or convert the image to a directory first",
        )
    return write >= 0, None


def _strength(settings: Settings, name: str) -> int:
    """Return how strong the speaker is who set an option last; -1 if nobody did."""
    found = settings.last(name)
    return -1 if found is None else found.strength


def _rights_rows(settings: Settings) -> list[Row]:
    """Return what the user asked for that says all by itself."""
    names = ("write", "write-fake", "write-fake-scope", "private-tmp", "seccomp", "fuse-single")
    found = [(name, setting) for name in names if (setting := settings.last(name))]
    found += [("ld-cache", setting) for setting in settings.all("ld-cache")]
    return [
        Row(name if setting.value is True else f"{name} {setting.value}", "asked for", setting.origin)
        for name, setting in found
        if setting.value is not False
    ]


def _join(settings: Settings, launcher: Launcher) -> tuple[bool, Row]:
    """Say whether the ranks of a node share one container, and why."""
    asked = settings.last("join")
    if asked is not None:
        wanted = asked.value is True
        return wanted, Row("join" if wanted else "no join", "asked for", asked.origin)
    if launcher.outside:
        return True, Row(
            "join", "ranks of one node read each other's memory only within one user namespace", "chlaunch"
        )
    return False, Row("no join", "launcher and ranks are in one container already", "chlaunch")


def _ch_run(request: Request, context: Context, inside: Container) -> tuple[str, ...]:
    """Return the words that enter the container."""
    verbose = ("--verbose",) if request.settings.is_on("verbose") else ()
    return (context.ch_run, *verbose, *container.words(inside))


def _mpi_words(request: Request, launcher: Launcher) -> str | None:
    """Return the wire-up the user chose in the launcher's own words, None if they did not."""
    return value_of(request.launcher, launcher.mpi_options)


def _number(settings: Settings, name: str) -> int | None:
    """Return the value of a numeric option, None if it was not given."""
    text = settings.text(name)
    return int(text) if text else None
