"""Dockerfiles: what is read into what, what is said of what makes no sense, and an end to everything."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chlaunch.errors import BuildError
from chlaunch.image.dockerfile import lines, parse, reading, stages, syntax
from chlaunch.image.dockerfile.command import Command
from chlaunch.image.dockerfile.scope import Scope


def read(text: str) -> syntax.Dockerfile:
    """Return what a Dockerfile says."""
    return parse.parse(text.encode("utf-8", "surrogateescape"), "Dockerfile")


def steps(text: str) -> tuple[syntax.Instruction, ...]:
    """Return the instructions of a stage that text stands in."""
    return read(f"FROM base\n{text}").stages[0].instructions


def refused(text: str) -> BuildError:
    """Return the failure that text is."""
    with pytest.raises(BuildError) as caught:
        read(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("", "1:1: there is no instruction", ""),
        ("# only\n\n# comments\n", "1:1: there is no instruction", ""),
        ("ARG A=1\n", "1:1: there is no FROM", "FROM IMAGE"),
        ("RUN x\nFROM a\n", "1:1: RUN before FROM", "only ARG"),
        ("FORM a\n", "1:1: there is no instruction FORM", "did you mean FROM?"),
        ("FROM a\nxyzzy\n", "2:1: there is no instruction XYZZY", "there are FROM, ADD"),
        ("FROM\n", "1:5: FROM takes an image", "FROM IMAGE [AS NAME]"),
        ("FROM a b\n", "1:6: FROM takes an image", ""),
        ("FROM a of b\n", "1:6: FROM takes an image", ""),
        ("FROM a AS 1b\n", "1:11: 1b can't name a stage", "a letter"),
        ("FROM --platform=lin*x a\n", "1:6: --platform=lin*x is no platform", "linux/amd64"),
        ("FROM --arg= a\n", "1:6: --arg without a name", "--arg=NAME=VALUE"),
        ("FROM --platform a\n", "1:6: --platform has no value", "--platform=VALUE"),
        ("FROM a\nFROM ${b\n", "2:6: a quote or a brace is not closed", ""),
        ("# escape=x\nFROM a\n", "1:10: the escape character", ""),
        ("# syntax=a\n# syntax=b\nFROM a\n", "2:1: the directive syntax a second time", ""),
        ("FROM a\0\n", "1:7: a NUL byte", ""),
        ("FROM a\nRUN\n", "2:4: RUN without a command", ""),
        ("FROM a\nRUN []\n", "2:5: RUN without a command", ""),
        ("FROM a\nRUN --mont=x y\n", "2:5: RUN has no --mont", "did you mean --mount?"),
        ("FROM a\nRUN --x y\n", "2:5: RUN has no --x", "RUN has --mount, --network, --security"),
        ("FROM a\nENV --x y=z\n", "2:5: ENV has no --x", "ENV has no flags"),
        ("FROM a\nRUN --network=bridge y\n", "2:5: --network=bridge", "default, none, host"),
        ("FROM a\nRUN --network=none --network=none y\n", "2:20: --network a second time", ""),
        ("FROM a\nRUN --security=all y\n", "2:5: --security=all", "sandbox, insecure"),
        ('FROM a\nRUN ["a", 1]\n', "2:5: an array in exec form has strings only", ""),
        ('FROM a\nRUN ["a\\u0000"]\n', "2:5: no argument can have a NUL", ""),
        ('FROM a\nRUN ["\\udcff"]\n', "2:5: an escape", ""),
        ("FROM a\nRUN " + "[" * 100_000 + "\n", "2:5: arrays within arrays", ""),
        ("FROM a\nRUN <<EOF\nx\n", "2:5: the here-document EOF has no end", "a line must say EOF"),
        ("FROM a\nRUN \\\n  cat <<-EOF\nx\n", "3:7: the here-document EOF has no end", "after tabs"),
        ("FROM a\nCOPY a <<EOF\nEOF\n", "2:8: a here-document can't be the destination", ""),
        ("FROM a\nCOPY --from=b <<EOF /x\nEOF\n", "2:6: a here-document comes from no stage", ""),
        ("FROM a\nCOPY a\n", "2:7: COPY without a destination", "SOURCE... DESTINATION"),
        ("FROM a\nADD\n", "2:4: ADD without a source", ""),
        ('FROM a\nCOPY "a b" c\n', "2:6: a quote or a brace", 'COPY ["a name with blanks"'),
        ("FROM a\nCOPY --from=$x a b\n", "2:6: there are no variables in --from", "FROM IMAGE AS NAME"),
        ("FROM a\nCOPY --from= a b\n", "2:6: --from is empty", ""),
        ("FROM a\nCOPY --link=no a b\n", "2:6: --link is true or false", ""),
        ("FROM a\nCOPY --chmod=999 a b\n", "2:14: --chmod=999 is no mode", "0755"),
        ("FROM a\nCOPY --from=0 a b\n", "2:13: stage 0 is this one", ""),
        ("FROM a\nCOPY --from=7 a b\n", "2:13: stage 7 does not exist", ""),
        ("FROM a\nCOPY --from=1 a b\nFROM c\n", "2:13: stage 1 comes later", ""),
        ("FROM a\nCOPY --from=Late a b\nFROM c AS late\n", "2:13: the stage Late comes later", "above"),
        ("FROM a AS b\nRUN --mount=from=b,target=/x y\n", "2:18: the stage b is this one", ""),
        ("FROM a\nADD --checksum=md5:0 http://a/b c\n", "2:16: --checksum=md5:0 is no checksum", "sha256:"),
        ("FROM a\nADD --from=x b c\n", "2:5: ADD has no --from", ""),
        ("FROM a\nENV\n", "2:4: ENV without a name", ""),
        ("FROM a\nENV a\n", "2:5: a has no value", "ENV a=VALUE"),
        ("FROM a\nENV a=b c\n", "2:9: there is no = in c", 'ENV NAME="a b"'),
        ("FROM a\nENV =b\n", "2:5: a name is empty", ""),
        ("FROM a\nENV a=${x:=y}\n", "2:10: after ${NAME there is one of", ""),
        ("FROM a\nENV a='\n", "2:7: a quote or a brace is not closed", ""),
        ("FROM a\nARG\n", "2:4: ARG without a name", ""),
        ("FROM a\nLABEL a b='\n", "2:11: a quote", ""),
        ("FROM a\nEXPOSE 80 99999\n", "2:11: 99999 is no port", "65535"),
        ("FROM a\nEXPOSE 8080 80/x 80\n", "2:13: 80/x is no port", ""),
        ("FROM a\nEXPOSE 8000 0\n", "2:13: 0 is no port", ""),
        ("FROM a\nEXPOSE 9-8\n", "2:8: 9-8 is no port", ""),
        ("FROM a\nEXPOSE 80/icmp\n", "2:8: 80/icmp is no port", ""),
        ("FROM a\nSTOPSIGNAL SIGNOT\n", "2:12: SIGNOT is no signal", "SIGTERM"),
        ("FROM a\nSTOPSIGNAL 65\n", "2:12: 65 is no signal", ""),
        ("FROM a\nSHELL /bin/sh -c\n", "2:7: SHELL takes an array", '["/bin/bash"'),
        ("FROM a\nSHELL []\n", "2:7: SHELL takes an array", ""),
        ("FROM a\nVOLUME []\n", "2:8: a path is empty", ""),
        ("FROM a\nHEALTHCHECK\n", "2:12: HEALTHCHECK without CMD or NONE", ""),
        ("FROM a\nHEALTHCHECK curl x\n", "2:13: HEALTHCHECK curl", "CMD COMMAND"),
        ("FROM a\nHEALTHCHECK CMD\n", "2:16: HEALTHCHECK CMD without a command", ""),
        ("FROM a\nHEALTHCHECK NONE x\n", "2:13: HEALTHCHECK NONE takes no arguments", ""),
        ("FROM a\nHEALTHCHECK --interval=1 CMD x\n", "2:24: --interval=1 is no duration", "30s"),
        ("FROM a\nHEALTHCHECK --timeout=10us CMD x\n", "2:23: --timeout=10us is no duration", "1ms"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x\n", "2:13: --retries=-1 is no number", ""),
        ("FROM a\nONBUILD\n", "2:8: ONBUILD without an instruction", ""),
        ("FROM a\nONBUILD ONBUILD RUN x\n", "2:9: ONBUILD ONBUILD is not allowed", ""),
        ("FROM a\nONBUILD from x\n", "2:9: ONBUILD FROM is not allowed", ""),
        ("FROM a\nONBUILD \\\n RUM x\n", "3:2: there is no instruction RUM", "did you mean RUN?"),
        ("FROM a\nRSYNC a\n", "2:8: RSYNC without a destination", "after ="),
        ("FROM a\nRSYNC +x a b\n", "2:7: +x is no preset", "+m, +l, +u, +z"),
        ("FROM a\nRSYNC host:/a b\n", "2:7: host:/a is on another host", ""),
        ("FROM a\nRSYNC --rsh=x a b\n", "2:7: --rsh=x reaches outside", ""),
        ("FROM a\nNSYNC -ave x a b\n", "2:7: -ave reaches outside", ""),
        ("FROM a\n" + "RUN x\n" * 10_001, "", "there are more than 10000 instructions"),
    ],
)
def test_what_makes_no_sense(text: str, where: str, hint: str) -> None:
    failure = refused(text)
    assert failure.message.startswith(f"can't parse: Dockerfile:{where}")
    assert hint in failure.hint or hint in failure.message
    assert failure.exit_code == 31


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        ("type=bnd,target=/a", "there is no mount of type bnd"),
        ("target=/a,sorce=b", "--mount has no sorce"),
        ("type=cache", "a mount of type cache needs a target"),
        ("type=tmpfs,size=1m", "a mount of type tmpfs needs a target"),
        ("type=secret", "a secret needs an id"),
        ("type=secret,id=a,source=b", "a secret has an id or a source"),
        ("type=tmpfs,target=/a,size=x", "--mount: size=x is no size"),
        ("type=tmpfs,target=/a,id=x", "a mount of type tmpfs takes no id"),
        ("type=bind,target=/a,mode=0644", "a mount of type bind takes no mode"),
        ("type=bind,target=/a,required", "a mount of type bind takes no required"),
        ("type=cache,target=/a,sharing=some", "--mount: sharing=some"),
        ("type=cache,target=/a,mode=9", "--mount: mode=9 is no mode"),
        ("type=cache,target=/a,uid=-1", "--mount: uid=-1 is no number"),
        ("type=cache,target=/a,ro=perhaps", "--mount: readonly=perhaps is neither"),
        ("type=bind,target", "--mount: target needs a value"),
        ("type=bind,target=/a/..", "a mount can't replace the whole image"),
        ("type=bind,from=$x,target=/a", "there are no variables in from="),
        ("", "--mount takes KEY=VALUE"),
        ("target=/a,,source=b", "--mount takes KEY=VALUE"),
    ],
)
def test_mounts_that_make_no_sense(mount: str, why: str) -> None:
    assert why in refused(f"FROM a\nRUN --mount={mount} x\n").message


def test_all_keys_of_mounts() -> None:
    (run,) = steps(
        "RUN --mount=type=cache,id=i,dst=/c,rw=false,sharing=PRIVATE,from=img:1,src=s,mode=755,uid=1,gid=2 "
        "--mount=destination=/b,rw --mount='type=bind,\"target=/x,y\",ro=1' --mount=type=tmpfs,target=/t,size=1.5GiB x"
    )
    assert isinstance(run, syntax.Run)
    cache, writable, comma, memory = run.mounts
    assert (cache.identifier, cache.target, cache.read_only, cache.sharing) == ("i", "/c", True, "private")
    assert (cache.origin, cache.source, cache.mode, cache.uid, cache.gid) == ("img:1", "s", 0o755, 1, 2)
    assert (writable.kind, writable.target, writable.read_only) == ("bind", "/b", False)
    assert (comma.target, comma.read_only) == ("/x,y", True)
    assert (memory.size, memory.read_only) == (3 << 29, False)


def test_mounts_with_variables_are_checked_when_they_have_values() -> None:
    (run,) = steps("RUN --mount=type=$T,target=/a,mode=$M x")
    done = run.expanded(Scope(environment={"T": "cache", "M": "0700"}))
    assert isinstance(done, syntax.Run)
    assert (done.mounts[0].kind, done.mounts[0].mode) == ("cache", 0o700)
    with pytest.raises(BuildError, match=r"Dockerfile:2:.*mode=x is no mode"):
        run.expanded(Scope(environment={"T": "cache", "M": "x"}))
    with pytest.raises(BuildError, match="a mount of type bind takes no mode"):
        run.expanded(Scope(environment={"T": "bind", "M": "0700"}))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("EXPOSE $P", "2:8: nonsense is no port"),
        ("STOPSIGNAL $P", "2:12: nonsense is no signal"),
        ("COPY --chmod=$P a b", "nonsense is no mode"),
        ("ADD --checksum=$P http://a b", "nonsense is no checksum"),
        ("COPY $EMPTY b", "2:6: $EMPTY is empty"),
        ("WORKDIR $EMPTY", "2:9: $EMPTY is empty"),
        ("USER ${EMPTY}", "2:6: ${EMPTY} is empty"),
        ("VOLUME /a $EMPTY", "2:11: $EMPTY is empty"),
        ("ENV $EMPTY=b", "2:5: $EMPTY is empty"),
        ("ENV a=1 \\\n  b=${EMPTY:?no}", "3:5: EMPTY: no"),
        ("COPY <<E /x\n${EMPTY:?no}\nE", "2:6: EMPTY: no"),
    ],
)
def test_values_that_make_no_sense(text: str, why: str) -> None:
    (step,) = steps(text)
    with pytest.raises(BuildError) as caught:
        step.expanded(Scope(environment={"P": "nonsense", "EMPTY": ""}))
    assert why in caught.value.message


def test_the_caret_points_at_what_is_wrong() -> None:
    failure = refused("FROM a\n\tRUN \\\n\t  --mount=type=bnd,target=/a x\n")
    line, caret = failure.hint.splitlines()[-2:]
    assert line[caret.index("^") :].startswith("bnd")
    failure = refused("FROM a\nEXPOSE " + "80 " * 100 + "x" + " 80" * 100)
    line, caret = failure.hint.splitlines()[-2:]
    assert line[caret.index("^")] == "x"
    assert len(line) <= 80
    failure = refused("FROM a\nEXPOSE \x1b[31m\udcff y")
    assert "\x1b" not in failure.hint
    assert "\\x1b[31m\\udcff" in failure.hint


def test_messages_are_fit_to_be_shown() -> None:
    failure = refused("FROM a\nF\x1b[31m\udcff\u202e x")
    assert failure.message == "can't parse: Dockerfile:2:1: there is no instruction F\\x1b[31M\\udcff\\u202e"
    failure = refused("FROM a\nENV a=b " + "x" * 9999)
    assert len(failure.message) < 300
    assert all(len(line) < 300 for line in failure.hint.splitlines())


def test_warnings_are_fit_to_be_shown() -> None:
    file = read("FROM a\nMAINTAINER \x1b[31m\udcff" + "x" * 9999)
    (remark,) = file.warnings
    assert "\\x1b[31m\\udcff" in remark.text
    assert len(remark.text) <= 200


def test_places() -> None:
    text = "\n# x\nFROM a\nRUN a \\\n # c\n b\nRUN <<E\nx\nE\nCMD x"
    run, heredoc, cmd = read(text).stages[0].instructions
    assert [(step.place.line, step.place.last) for step in (run, heredoc, cmd)] == [(4, 6), (7, 9), (10, 10)]
    assert run.place.original == "RUN a  b"


@pytest.mark.parametrize(
    ("text", "original"),
    [
        ("RUN a \\", "RUN a"),
        ("RUN a \\  \t\n b", "RUN a  b"),
        ("RUN a \\\\\nRUN b", "RUN a \\\\"),
        ("RUN a \\\n\\\nb", "RUN a b"),
        ("RUN a \\\n#x \\\nb", "RUN a b"),
        ("  RUN\ta", "RUN\ta"),
        ("\\\n RUN a", "RUN a"),
    ],
)
def test_continued_lines(text: str, original: str) -> None:
    assert steps(text)[0].place.original == original


def test_an_empty_line_within_an_instruction_is_said_and_left_out() -> None:
    file = read("FROM a\nRUN a \\\n\n  \n b\n")
    assert [remark.line for remark in file.warnings] == [3]
    assert file.stages[0].instructions[0].place.original == "RUN a  b"


@pytest.mark.parametrize(
    ("word", "name", "expand", "strip"),
    [
        ("<<EOF", "EOF", True, False),
        ("<<-EOF", "EOF", True, True),
        ('<<"EOF"', "EOF", False, False),
        ("<<-'E F'", "E F", False, True),
        ("<<E'O'F", "EOF", False, False),
        ("<<E\\'F", "E'F", True, False),
        ("3<<EOF", "EOF", True, False),
        ("<< EOF", "EOF", True, False),
        ("<< -EOF", "-EOF", True, False),
        ("<<$EOF", "$EOF", True, False),
        ("<<file.txt", "file.txt", True, False),
    ],
)
def test_names_of_heredocs(word: str, name: str, expand: bool, strip: bool) -> None:  # noqa: FBT001  a table
    (run,) = steps(f"RUN cat {word} >x\n\tbody\n{name}\n")
    assert isinstance(run, syntax.Run)
    (heredoc,) = run.command.heredocs
    assert (heredoc.name, heredoc.expand, heredoc.strip, heredoc.body) == (name, expand, strip, "\tbody\n")
    assert heredoc.content == ("body\n" if strip else "\tbody\n")


@pytest.mark.parametrize(
    "text",
    ["RUN cat <<<EOF", "RUN '<<EOF'", 'RUN echo "<<EOF"', "RUN cat<<EOF", 'RUN ["<<EOF"]', "RUN echo $((1 << 2))",
     "RUN a << ", "RUN it's <<EOF", "USER <<EOF", "RUN a \\<<EOF"],
)  # fmt: skip
def test_what_is_no_heredoc(text: str) -> None:
    (step,) = steps(text)
    assert not isinstance(step, syntax.Run) or step.command.heredocs == ()


def test_a_program_as_heredoc() -> None:
    (run,) = steps("RUN <<-E\n\t#!/usr/bin/env python3\n\tprint()\n\tE\n")
    assert isinstance(run, syntax.Run)
    assert run.command.alone
    assert run.command.text == "#!/usr/bin/env python3\nprint()\n"
    assert run.command.argv(("/bin/bash", "-c")) == ("/bin/bash", "-c", run.command.text)


def test_tabs_that_a_variable_gave_are_kept() -> None:
    (copy,) = steps("COPY <<-E /x\n\t\t${V}a\n\tE")
    assert isinstance(copy, syntax.Copy)
    assert copy.expanded(Scope(environment={"V": "\t"})).files[0].content == "\ta\n"


def test_flags_have_quotes_and_backslashes() -> None:
    (copy,) = steps("""COPY --exclude="a b" --exclude='c'd --exclude=e\\ f --chown=0 x /y""")
    assert isinstance(copy, syntax.Copy)
    assert copy.excludes == ("a b", "cd", "e f")


def test_what_needs_privilege_is_said_once() -> None:
    file = read(
        "FROM a\nCOPY --chown=x a b\nADD --chown=y a b\nRUN --security=insecure x\nRUN --security=insecure y\n"
    )
    assert [remark.line for remark in file.warnings] == [2, 4]
    assert "--chown=x" in file.warnings[0].text


def test_triggers_are_read_again() -> None:
    (later,) = steps("ONBUILD COPY <<E \\\n  /x\nv=$V\nE")
    assert isinstance(later, syntax.Onbuild)
    copy = parse.trigger(later.expression, "base:1")
    assert isinstance(copy, syntax.Copy)
    assert copy.expanded(Scope(environment={"V": "1"})).files[0].body == "v=1\n"
    with pytest.raises(BuildError, match="ONBUILD of base:1:2:1"):
        parse.trigger("RUN a\nRUN b", "base:1")
    with pytest.raises(BuildError, match="ONBUILD of base:1:1:1"):
        parse.trigger("FROM a", "base:1")


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=5
    )
)
def test_exec_forms_there_and_back(words: list[str]) -> None:
    (cmd,) = steps(f"CMD {json.dumps(words, ensure_ascii=bool(words))}")
    assert isinstance(cmd, syntax.Cmd)
    assert cmd.command == Command(tuple(words), for_shell=False)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True),
                       st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=9),
                       min_size=1, max_size=4))  # fmt: skip
def test_quoted_values_there_and_back(pairs: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return '"' + "".join(f"\\{char}" if char in '"$\\' else char for char in text) + '"'

    (env,) = steps("ENV " + " ".join(f"{name}={quoted(value)}" for name, value in pairs.items()))
    assert isinstance(env, syntax.Env)
    assert dict(env.expanded(Scope()).pairs) == pairs


NAMES = st.sampled_from([*reading.READERS, "FROM", "from", "# escape=", "ONBUILD COPY", "#", "EOF"])
BITS = st.sampled_from([
    " ", " a", ' "b', " 'c", " $x", " ${y:-", "}", " \\", "\\\n", "\n", " <<EOF", " <<-'EOF'", " --from=", " --mount=type=",
    " [", '"a", ', "]", " as b", "=", ",", "\t", "\r\n", " `", "\udcff", "\ufeff", "é", "1s", " CMD", "/", "#", "*", "{",
])  # fmt: skip
NEARLY = st.lists(st.one_of(NAMES.map("\n{}".format), BITS), max_size=30).map("".join)


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=200), NEARLY.map(lambda text: f"FROM a{text}".encode("utf-8", "surrogateescape"))
    )
)
def test_anything_is_read_or_refused(data: bytes) -> None:
    with suppress(BuildError):  # nothing else may come
        file = parse.parse(data, "Dockerfile")
        plan = stages.plan(file, "", {}, {})
        for step in plan.steps:
            for instruction in step.stage.instructions:
                instruction.expanded(plan.scope({}, {}))


@pytest.mark.parametrize(
    "text",
    [
        "ENV x=" + "${y:-" * 20_000,
        "ENV x=" + "${y:-" * 20_000 + "}" * 20_000,
        'ENV x="' + '"' * 100_000,
        "RUN [" + "[" * 100_000,
        'RUN ["' + "\\" * 100_000,
        "RUN " + "<<a " * 25_000,
        "RUN " + "$((" * 30_000,
        "RUN " + "'" * 99_999,
        "COPY " + "--exclude=a " * 10_000 + "a b",
        "RUN --mount=" + "," * 100_000 + " x",
        "RUN " + "--mount=target=/a " * 5_000 + "x",
        "HEALTHCHECK --interval=" + "1h" * 50_000 + " CMD x",
        "ENV " + "a=b " * 30_000,
        "ENV a " + "\\ " * 60_000,
        "LABEL " + "\\\n" * 200_000 + "a=b",
        "#\n" * 500_000,
        "RUN \\\n" + "# x\n" * 200_000 + "a",
        "EXPOSE " + "80 " * 40_000,
        ("ENV a=" + "$a" * 60_000 + "\n") * 5,
        ("RUN <<E\n" + "x\n" * 50 + "E\n") * 5_000,
    ],
    ids=lambda text: f"{text[:16]!r}",
)
def test_hostile_files_end_soon(text: str) -> None:
    started = time.process_time()
    with suppress(BuildError):
        read(f"FROM a\n{text}")
    assert time.process_time() - started < 20  # on a slow machine; a second or two otherwise


def test_a_large_file_is_refused() -> None:
    assert "larger than" in refused("#" * (lines.FILE_MOST + 1)).message
    assert "longer than" in refused("FROM a\nRUN " + "x" * lines.STATEMENT_MOST).message
