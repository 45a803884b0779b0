"""A Dockerfile's bytes to a ``syntax.Dockerfile``."""

from collections.abc import Sequence
from dataclasses import replace

from chlaunch.image.dockerfile import checks, flags, lines, reading, stages, syntax
from chlaunch.image.dockerfile.lines import Statement
from chlaunch.image.dockerfile.place import Remark, said
from chlaunch.image.dockerfile.scope import check_word

FRONTEND = "docker/dockerfile"

# Names of stages that mean something else.
RESERVED = ("scratch", "context")

ROOT = ("", "0", "root", "0:0", "root:root", "0:root", "root:0")

LAST_COUNTS = (syntax.Cmd, syntax.Entrypoint, syntax.Healthcheck)


def parse(data: bytes, name: str) -> syntax.Dockerfile:
    """Return what a Dockerfile says. name: the file's, for messages.

    Raises:
        BuildError: it does not make sense; says file, line and column, and points there.

    """
    read = lines.read(data, name)
    global_args: list[syntax.Arg] = []
    found: list[syntax.Stage] = []
    for statement in read.statements:
        if statement.name == "FROM":
            found.append(_stage(statement, len(found)))
            continue
        instruction = reading.instruction(statement)
        if found:
            found[-1] = replace(found[-1], instructions=(*found[-1].instructions, instruction))
        elif isinstance(instruction, syntax.Arg):
            global_args.append(instruction)
        else:
            raise statement.place.wrong(
                f"{statement.name} before FROM", 0, "only ARG can stand before the first FROM"
            )
    if not found:
        raise read.statements[-1].place.wrong(
            "there is no FROM", 0, "FROM IMAGE begins what is built; FROM scratch: of nothing"
        )
    stages.check(found)
    remarks = sorted((*read.remarks, *_remarks(read, found)), key=lambda remark: remark.line)
    warnings = (replace(remark, text=said(remark.text)) for remark in remarks)
    return syntax.Dockerfile(read.directives, tuple(global_args), tuple(found), tuple(warnings))


def trigger(expression: str, name: str) -> syntax.Instruction:
    """Return the instruction that an image keeps for those built on it. name: the image's, for messages.

    Raises:
        BuildError: it is not one instruction, or makes no sense.

    """
    read = lines.read(expression.encode("utf-8", "surrogateescape"), f"ONBUILD of {name}")
    statement = read.statements[0]
    if len(read.statements) > 1 or statement.name in reading.NOT_LATER:
        raise read.statements[-1].place.wrong(
            "ONBUILD keeps one instruction, and not FROM, ONBUILD or MAINTAINER"
        )
    return reading.instruction(statement)


def _stage(statement: Statement, index: int) -> syntax.Stage:
    """Return the stage that a FROM begins."""
    place = statement.place
    found = flags.read(statement)
    words = reading.words_of(statement.text)
    if len(words) not in (1, 3) or (words[1:2] and words[1].upper() != "AS"):
        raise place.wrong(
            "FROM takes an image, and maybe AS and a name", statement.offset, "FROM IMAGE [AS NAME]"
        )
    platform = found.get("platform", [""])[0]
    if "platform" in found and not platform:
        raise place.wrong("--platform is empty", "--platform")
    if checks.is_fixed(platform):
        checks.platform(platform, place)
    check_word(words[0], place)
    check_word(platform, place)
    name = checks.stage_name(words[2], place) if words[1:] else ""
    return syntax.Stage(place, index, words[0], platform, name, _arguments(statement, found.get("arg", [])))


def _arguments(statement: Statement, pairs: Sequence[str]) -> tuple[syntax.Instruction, ...]:
    """Return the ARG that --arg of FROM is."""
    for pair in pairs:
        if pair.partition("=")[0] == "":
            raise statement.place.wrong("--arg without a name", "--arg", "--arg=NAME=VALUE")
        check_word(pair, statement.place)
    split = tuple(
        (name, value if equals else None) for name, equals, value in (pair.partition("=") for pair in pairs)
    )
    return (syntax.Arg(statement.place, split),) if pairs else ()


def _remarks(read: lines.Read, found: Sequence[syntax.Stage]) -> list[Remark]:
    """Return what is to be said of a Dockerfile that makes sense."""
    remarks = []
    frontend = read.directives.get("syntax", FRONTEND)
    if FRONTEND not in frontend:
        remarks.append(
            Remark(1, f"syntax={frontend}: read as {FRONTEND} reads it, whatever that one would do")
        )
    names: set[str] = set()
    for stage in found:
        if stage.name in names:
            remarks.append(Remark(stage.line, f"a second stage {stage.name}: what follows means this one"))
        if stage.name in RESERVED:
            remarks.append(
                Remark(stage.line, f"a stage named {stage.name}, which is a word with a meaning of its own")
            )
        names.add(stage.name or f"{stage.index}")
        remarks += _of_stage(stage)
    return remarks + _of_statements(read.statements)


def _of_stage(stage: syntax.Stage) -> list[Remark]:
    """Return what is to be said of a stage's instructions together."""
    remarks = []
    for kind in LAST_COUNTS:
        several = [instruction for instruction in stage.instructions if isinstance(instruction, kind)]
        if len(several) > 1:
            text = f"a further {kind.__name__.upper()} of this stage: only the last one counts"
            remarks.append(Remark(several[-1].place.line, text))
    first = next((step for step in stage.instructions if isinstance(step, syntax.Workdir)), None)
    if first and first.path[0] not in "/$'\"":
        remarks.append(
            Remark(first.place.line, f"WORKDIR {first.path}: below what the base image has as such")
        )
    return remarks


def _of_statements(statements: Sequence[Statement]) -> list[Remark]:
    """Return what is to be said of single statements; what nobody without privilege can do only once."""
    remarks = []
    once: dict[str, Remark] = {}
    for statement in statements:
        line, name, text = statement.place.line, statement.name, statement.text
        owners = [flag.text for flag in statement.flags if flag.text.startswith("--chown=")]
        if any(flag.removeprefix("--chown=") not in ROOT for flag in owners):
            why = f"{owners[0]}: without privilege all files are yours; ignored, here and below"
            once.setdefault("chown", Remark(line, why))
        if name == "RUN" and any(flag.text == "--security=insecure" for flag in statement.flags):
            why = "--security=insecure: no step gets privileges that you do not have; ignored, here and below"
            once.setdefault("security", Remark(line, why))
        if name == "MAINTAINER":
            remarks.append(
                Remark(line, f'MAINTAINER is deprecated; LABEL org.opencontainers.image.authors="{text}"')
            )
        if (
            name in ("ENV", "LABEL")
            and "=" not in reading.words_of(text, "quoted_words", statement.place.source.escape)[0]
        ):
            remarks.append(Remark(line, f"{name} NAME VALUE is the older form; {name} NAME=VALUE"))
        if _looks_like_an_array(statement):
            remarks.append(
                Remark(line, f"{name}: no JSON array of strings, so it is taken as words for the shell")
            )
    return remarks + list(once.values())


def _looks_like_an_array(statement: Statement) -> bool:
    """Say whether a statement was meant in exec form, but is not: test(1) has brackets, too."""
    text = statement.text
    if statement.name not in ("RUN", "CMD", "ENTRYPOINT", "COPY", "ADD", "VOLUME"):
        return False
    if not text.startswith("[") or not text.endswith("]") or text.startswith("[["):
        return False
    return ("," in text or not text.startswith("[ ")) and reading.command(statement).for_shell
