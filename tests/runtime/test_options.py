"""Every option of ch-run, and the table COMPATIBILITY of ch-run(1) that lists them.

A row of the table that is not "refused" needs a function below, marked with `effect`, that shows what the option
does to a container. The function gets the option in every way it can be written: in full with `=`, as two words,
short, and abbreviated. An option without a row, or a row without a function, fails.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime import Runtime

    Show = Callable[[Runtime, list[str]], None]

CHECKOUT = Path(__file__).resolve().parents[2]

# What argp has by itself; the last two it shows to nobody, but an abbreviation must not mean them as well.
ARGP = ("help", "usage")
ARGP_HIDDEN = ("program-name", "HANG")


class Row(NamedTuple):
    """A row of the table."""

    short: str
    state: str
    reason: str


class Form(NamedTuple):
    """How an option is written, by option_rows.c. value: "none", "needed" or "optional"."""

    short: str
    value: str
    hidden: bool


def table() -> dict[str, Row]:
    """Return the table of the manual page, by name of the option."""
    page = (CHECKOUT / "docs/ch-run.1").read_text()
    section = page.partition("\n.Sh COMPATIBILITY\n")[2].partition("\n.Sh ")[0]
    pattern = r"^\.It Fl (?:(\\&\?|\w) , )?-([a-z0-9-]+) Ta (same|changed|refused|ours) Ta (.+)$"
    found = re.findall(pattern, section, re.MULTILINE)
    assert len(found) == section.count("\n.It Fl "), "a row of another form"
    assert len({name for _, name, _, _ in found}) == len(found), "an option has two rows"
    return {name: Row(short.removeprefix("\\&"), state, reason) for short, name, state, reason in found}


def forms() -> dict[str, Form]:
    """Return how options are written, by name: the rows of option_rows.c, and argp's."""
    text = (CHECKOUT / "chlaunch/runtime/option_rows.c").read_text()
    found = re.findall(r'\{"([a-z0-9-]+)", (\'.\'|OPTION_\w+),\s+("[^"]*"|NULL),\s+([A-Z_0-9 |]+),', text)
    rows = {
        name: Form(
            key[1] if key[0] == "'" else "",
            "none" if argument == "NULL" else "optional" if "OPTIONAL" in flags else "needed",
            "HIDDEN" in flags,
        )
        for name, key, argument, flags in found
    }
    return {
        **rows,
        "help": Form("?", "none", hidden=False),
        "usage": Form("", "none", hidden=False),
    }


TABLE = table()
FORMS = forms()
REFUSED = [name for name, row in TABLE.items() if row.state == "refused"]
EFFECTS: dict[tuple[str, str | None], Show] = {}


def effect(option: str, value: str | None = None) -> Callable[[Show], Show]:
    """Mark a function as the one that shows what `option`, given `value`, does."""

    def mark(show: Show) -> Show:
        assert (option, value) not in EFFECTS
        EFFECTS[option, value] = show
        return show

    return mark


def abbreviation(name: str) -> str | None:
    """Return the shortest prefix that can mean no other option; None if all of the name is needed."""
    others = [*FORMS, *ARGP_HIDDEN]
    for length in range(1, len(name)):
        if not any(other != name and other.startswith(name[:length]) for other in others):
            return name[:length]
    return None


def spellings(option: str, value: str | None) -> list[list[str]]:
    """Return all ways to write an option, as words."""
    form = FORMS[option]
    longs = [f"--{name}" for name in (option, abbreviation(option)) if name]
    shorts = [f"-{form.short}"] if form.short else []
    if value is None:
        return [[word] for word in (*longs, *shorts)]
    joined = [[f"{long}={value}"] for long in longs] + [[f"{short}{value}"] for short in shorts]
    apart = [[word, value] for word in (*longs[:1], *shorts)] if form.value == "needed" else []
    return joined + apart


def test_the_table_is_the_program(runtime: Runtime) -> None:
    offered = re.findall(r"^ +(?:-(.), |    )--([a-z0-9-]+)(\[?)(=?)", runtime("--help").stdout, re.MULTILINE)
    shown = {
        name: Form(short, "optional" if bracket else "needed" if equals else "none", hidden=False)
        for short, name, bracket, equals in offered
    }
    hidden = {name: form for name, form in FORMS.items() if form.hidden}
    assert {**shown, **hidden} == FORMS
    assert {name: row.short for name, row in TABLE.items() if row.state != "refused"} == {
        name: form.short for name, form in FORMS.items()
    }


def test_every_option_is_shown_to_work() -> None:
    assert {option for option, _ in EFFECTS} == set(FORMS)
    for option, form in FORMS.items():
        given = {value is not None for name, value in EFFECTS if name == option}
        assert given == {"none": {False}, "needed": {True}, "optional": {True, False}}[form.value], option


def test_the_section_of_options_has_them_all() -> None:
    page = (CHECKOUT / "docs/ch-run.1").read_text()
    section = page.partition("\n.Sh OPTIONS\n")[2].partition("\n.Sh ")[0]
    described = {
        name
        for line in section.splitlines()
        if line.startswith(".It Fl ")
        for name in re.findall(r"(?:Fl|,) -([a-z0-9-]+)", line)
    }
    assert described == {name for name, form in FORMS.items() if not form.hidden}


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("value", ["", "=1"])
def test_refused(runtime: Runtime, option: str, value: str) -> None:
    result = runtime(f"--{option}{value}", runtime.image, "--", "true")
    assert result.returncode == 64
    assert f"unrecognized option '--{option}{value}'" in result.stderr


@pytest.fixture(scope="module", autouse=True)
def files(runtime: Runtime) -> None:
    """Make what the options are given, in the user's home."""
    specification = {
        "cdiVersion": "0.5.0",
        "kind": "test.example/thing",
        "devices": [
            {"name": name, "containerEdits": {"env": [f"{name.upper()}=here"]}} for name in ("one", "two")
        ],
    }
    runtime.copy_image(
        "own",
        "mkdir ch sbin libs && cp /sbin/ldconfig sbin && echo A=image >ch/environment",
    )
    runtime.copy_image("own0", "mkdir ch && printf 'A=of the\\nimage\\0B=2' >ch/environment")
    runtime.machine.run(
        f"""
        set -e
        mkdir -p data things libs store/images/local%tiny+1 store/l
        echo content >data/file
        cp -L /lib/*/libm.so.6 libs
        cp -a {runtime.image} store/l/1a
        echo 1a >store/images/local%tiny+1/layers
        printf 'A=file\\nB=$A:2\\n' >variables
        printf 'A=of a\\nfile\\0B=2' >variables0
        mksquashfs own own.sqfs -quiet -noappend >mksquashfs.log 2>&1
        echo {shlex.quote(json.dumps(specification))} >things/thing.json
        """,
        check=True,
    )


def ways() -> list[object]:
    """Return a case for each way to write an option and each function that shows its effect."""
    return [
        pytest.param(show, words, id=" ".join(words))
        for (option, value), show in EFFECTS.items()
        for words in spellings(option, value)
    ]


# Binds, and what else is mounted.


@effect("bind", "data:/missing/point")
def bind(runtime: Runtime, words: list[str]) -> None:
    script = "cat /missing/point/file && touch /missing/point/made"
    assert runtime.output(script, *words) == "content"
    assert runtime.machine.run("rm ~/data/made").returncode == 0


@effect("bind-ro", "data:/mnt")
def bind_read_only(runtime: Runtime, words: list[str]) -> None:
    result = runtime.sh("cat /mnt/file; touch /mnt/made", *words)
    assert result.stdout == "content\n"
    assert "Read-only file system" in result.stderr


@effect("bind-try", "data:/mnt")
def bind_try(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("cat /mnt/file", *words) == "content"


@effect("bind-try", "/no/where:/mnt")
def bind_try_nothing(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("ls -A /mnt", *words) == ""


@effect("bind-layers", "/tmp/l/b:/tmp/l/a:/opt/both")
def bind_layers(runtime: Runtime, words: list[str]) -> None:
    """Two directories are one, a mark of deletion in the first counts, and no remount makes it writable."""
    runtime.machine.run(
        "rm -rf /tmp/l; mkdir -p /tmp/l/a/d /tmp/l/b/d && cd /tmp/l && echo 1 >a/d/x && echo 2 >a/d/y && "
        "echo 3 >b/d/y && echo 4 >a/z && unshare -r mknod b/z c 0 0",
        check=True,
    )
    result = runtime.sh(
        "cat /opt/both/d/*; ls /opt/both; touch /opt/both/made; mount -o remount,rw /opt/both; touch /opt/both/made",
        *("--uid=0", *words),
    )
    assert result.stdout == "1\n3\nd\n"
    assert result.stderr.count("Read-only file system") >= 2
    single = runtime.output("cat /mnt/*; ls /mnt", "--bind-layers=/tmp/l/b/d:/mnt")
    assert single.split() == ["3", "y"]
    assert runtime.machine.run("find /tmp/l -name made; rm -r /tmp/l").stdout == ""
    for wrong in ("/tmp", "/tmp:mnt", "tmp:/mnt", "/tmp:tmp:/mnt"):
        assert runtime(f"--bind-layers={wrong}", "own", "--", "true").returncode == 64
    for wrong in ("/no/where", ":".join(["/tmp"] * 201)):
        assert runtime(f"--bind-layers={wrong}:/mnt", "own", "--", "true").returncode == 31


@effect("tmpfs", "/opt/memory:1m")
def tmpfs(runtime: Runtime, words: list[str]) -> None:
    """Fill it up to its size, with a mount point in it; the default is half of what there is."""
    dd = "cd /opt/memory && stat -c %a . && dd if=/dev/zero bs=1k"
    script = f"{dd} count=900 of=some 2>/dev/null && cat b/file && {dd} count=200 of=more"
    result = runtime.sh(script, *words, "--bind=data:/opt/memory/b")
    assert result.stdout == "1777\ncontent\n1777\n"
    assert "No space left on device" in result.stderr
    half = "df -k /mnt | tail -1; grep MemTotal /proc/meminfo"
    found = runtime.output(half, "--tmpfs=/mnt").split()
    assert 0.49 < int(found[1]) / int(found[-2]) < 0.51
    assert "can't use this size" in runtime("--tmpfs=/mnt:much", "own", "--", "true").stderr
    assert runtime("--tmpfs=/mnt:", "own", "--", "true").returncode == 64


@effect("home")
def home(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("cat /home/alice/data/file; echo $HOME", *words).split() == [
        "content",
        "/home/alice",
    ]
    assert runtime.output("ls /home; echo $HOME") == "/root"


@effect("no-passwd")
def no_passwd(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("grep -c ^alice /etc/passwd /etc/group || true", *words).split() == [
        "/etc/passwd:0",
        "/etc/group:0",
    ]
    assert runtime.output("grep -c ^alice /etc/passwd") == "1"


@effect("private-tmp")
def private_tmp(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("ls -A /tmp; touch /tmp/made; stat -c %a /tmp", *words) == "1777"
    assert runtime.machine.run("ls /tmp/made").returncode != 0
    runtime.machine.run("mkdir -p -m 1777 /tmp/.X11-unix && touch /tmp/.X11-unix/X0", check=True)
    try:
        assert runtime.output("ls -A /tmp /tmp/.X11-unix", *words, env={"DISPLAY": ":0"}).split() == [
            "/tmp:",
            ".X11-unix",
            "/tmp/.X11-unix:",
            "X0",
        ]
    finally:
        runtime.machine.run("rm -r /tmp/.X11-unix", check=True)


@effect("write")
def write(runtime: Runtime, words: list[str]) -> None:
    assert runtime(*words, "own", "--", "touch", "/made").returncode == 0
    assert runtime.machine.run("rm own/made").returncode == 0
    assert runtime("own", "--", "touch", "/made").returncode == 1


@effect("write-fake")
def write_fake(runtime: Runtime, words: list[str]) -> None:
    script = "touch /made /etc/made && rm /etc/hostname && grep MemTotal /proc/meminfo && df -k /"
    for image in ("own", "own.sqfs"):
        result = runtime(*words, image, "--", "sh", "-c", script)
        assert (result.returncode, result.stderr) == (0, ""), result
        memory, size = int(result.stdout.split()[1]), int(result.stdout.splitlines()[-1].split()[1])
        assert 0.119 < size / memory < 0.121
    assert runtime.machine.run("ls own/made own/etc/made; ls own/etc/hostname").stdout == "own/etc/hostname\n"


@effect("write-fake", "1m")
def write_fake_size(runtime: Runtime, words: list[str]) -> None:
    dd = "dd if=/dev/zero bs=1k"
    script = f"{dd} count=900 of=/some 2>/dev/null && echo fits; {dd} count=200 of=/more"
    result = runtime(*words, "own", "--", "sh", "-c", script)
    assert result.stdout == "fits\n"
    assert "No space left on device" in result.stderr


MADE = ("touch /made && echo made", "ls /made 2>/dev/null || echo none")


@effect("write-fake-scope", "rank")
def write_fake_scope_rank(runtime: Runtime, words: list[str]) -> None:
    assert two_ranks(runtime, ["--join", *words], MADE, image="own") == ("made", "none")


@effect("write-fake-scope", "node")
def write_fake_scope_node(runtime: Runtime, words: list[str]) -> None:
    assert two_ranks(runtime, ["--join", *words], MADE, image="own") == ("made", "/made")


@effect("write-to", "kept")
def write_to(runtime: Runtime, words: list[str]) -> None:
    script = "rm /etc/hostname && mkdir /made && echo new >/made/file"
    assert runtime.machine.run("rm -rf kept && mkdir kept").returncode == 0
    result = runtime(*words, "own", "--", "sh", "-c", script)
    assert (result.returncode, result.stderr) == (0, "")
    assert runtime.machine.run("ls own/made 2>/dev/null; ls own/etc/hostname").stdout == "own/etc/hostname\n"
    again = runtime(
        *words, "own.sqfs", "--", "sh", "-c", "cat /made/file; test -e /etc/hostname || echo gone"
    )
    assert again.stdout == "new\ngone\n"
    assert runtime.machine.run("cat kept/upper/made/file").stdout == "new\n"
    assert runtime("--write-to=nosuch", "own", "--", "true").returncode == 31


@effect("no-tmp")
def no_tmp(runtime: Runtime, words: list[str]) -> None:
    """See nothing of the host's /tmp, and all that the image has there."""
    assert runtime.machine.run("touch /tmp/of-the-host; rm -rf kept2 && mkdir kept2").returncode == 0
    script = "ls /tmp; touch /tmp/of-the-image"
    for seen in ("", "of-the-image\n"):
        result = runtime(*words, "--write-to=kept2", "own", "--", "sh", "-c", script)
        assert (result.stdout, result.stderr) == (seen, "")


@effect("storage", "store")
def storage(runtime: Runtime, words: list[str]) -> None:
    result = runtime(*words, "local/tiny:1", "--", "echo", "found")
    assert (result.stdout, result.stderr) == ("found\n", "")
    missing = runtime("local/tiny:1", "--", "echo", "found")
    assert missing.returncode == 31
    assert "(nor in storage: /var/tmp/alice.ch)" in missing.stderr
    by_variable = runtime(
        "local/tiny:1", "--", "echo", "found", env={"CH_IMAGE_STORAGE": "/home/alice/store"}
    )
    assert by_variable.stdout == "found\n"


@effect("unsafe")
def unsafe(runtime: Runtime, words: list[str]) -> None:
    for given in (words, []):
        assert runtime(*given, "store/l/1a", "--", "echo", "by path").stdout == "by path\n"


@effect("mount", "data")
def mount(runtime: Runtime, words: list[str]) -> None:
    script = "cat /data/file; grep -c alice/data/ /proc/self/mountinfo; true"
    assert runtime(*words, "own.sqfs", "--", "sh", "-c", script).stdout == "0\n"
    wrong = [word.replace("data", "no-such") for word in words]
    result = runtime(*wrong, "own.sqfs", "--", "true")
    assert result.returncode == 64
    assert "--mount: no-such: No such file or directory" in result.stderr


@effect("fuse-single")
def fuse_single(runtime: Runtime, words: list[str]) -> None:
    servers = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[s]quashfuse_ll -f -s '"
    assert runtime(*words, "own.sqfs", "--", "sh", "-c", servers).stdout == "squashfuse_ll -f -s \n"
    runtime.machine.run("while cat /proc/[0-9]*/comm | grep -q squashfuse_ll; do :; done", check=True)
    assert runtime("own.sqfs", "--", "sh", "-c", servers).stdout == ""


@effect("ld-cache", "/libs")
def ld_cache(runtime: Runtime, words: list[str]) -> None:
    run = ["--bind=libs:/libs", "own", "--", "/sbin/ldconfig", "-p"]
    assert "=> /libs/libm.so.6" in runtime(*words, *run).stdout
    assert "/libs/" not in runtime(*run).stdout


# Devices.

THINGS = 'echo "${ONE-no} ${TWO-no}"'


@effect("cdi")
def cdi(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output(THINGS, "--cdi-dirs=things", *words) == "here here"
    assert runtime.output(THINGS, "--cdi-dirs=things") == "no no"


@effect("cdi", "test.example/thing")
@effect("cdi", "./things/thing.json")
def cdi_some(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output(THINGS, "--cdi-dirs=things", *words) == "here here"


@effect("device", "test.example/thing=two")
def device(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output(THINGS, "--cdi-dirs=things", *words) == "no here"


@effect("cdi-dirs", "/no/where:things")
def cdi_directories(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output(THINGS, "--device=test.example/thing=one", *words) == "here no"
    assert runtime.sh(THINGS, "--device=test.example/thing=one").returncode == 31


@effect("cdi-resolved")
def cdi_resolved(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("echo started", *words, "--device=no.such/thing=one") == "started"
    assert runtime.sh("true", "--device=no.such/thing=one").returncode == 31


# The command's directory, IDs and rights.


@effect("cd", "/usr/bin")
def directory(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("pwd", *words) == "/usr/bin"


@effect("cd-try", "/usr/bin")
def directory_try(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("pwd", *words) == "/usr/bin"


@effect("cd-try", "/no/where")
def directory_try_nothing(runtime: Runtime, words: list[str]) -> None:
    result = runtime.sh("pwd", *words)
    assert (result.returncode, result.stdout) == (0, "/\n")
    assert "warning: can't cd to /no/where in the container, starting in /" in result.stderr


@effect("uid", "0")
def uid(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("id -u", *words) == "0"


@effect("gid", "7")
def gid(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("id -g", *words) == "7"


@effect("seccomp")
def seccomp(runtime: Runtime, words: list[str]) -> None:
    script = "chown 12:34 /mnt/file; echo $?"
    assert runtime.output(script, "--bind=data:/mnt", *words) == "0"
    assert runtime.sh(script, "--bind=data:/mnt").stdout == "1\n"


# Variables. A later change wins.


def variable(runtime: Runtime, *words: str) -> str:
    """Return variable A as the command finds it; on the host A=host and B=b."""
    return runtime.output('echo "${A-unset}"', *words, env={"A": "host", "B": "b"})


@effect("set-env", "A=$B:$NONE:/c")
def set_variable(runtime: Runtime, words: list[str]) -> None:
    assert variable(runtime, *words) == "b:/c"
    assert variable(runtime, *words, "--unset-env=A") == "unset"


@effect("set-env", "variables")
def set_variables_of_a_file(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output("echo $A $B", *words) == "file file:2"


@effect("set-env")
def set_variables_of_the_image(runtime: Runtime, words: list[str]) -> None:
    assert runtime(*words, "own", "--", "sh", "-c", "echo $A").stdout == "image\n"


@effect("set-env0", "A=$B:/c")
def set_variable_0(runtime: Runtime, words: list[str]) -> None:
    assert variable(runtime, *words) == "b:/c"


@effect("set-env0", "variables0")
def set_variables_of_a_file_0(runtime: Runtime, words: list[str]) -> None:
    assert runtime.output('echo "$A" $B', *words) == "of a\nfile 2"


@effect("set-env0")
def set_variables_of_the_image_0(runtime: Runtime, words: list[str]) -> None:
    assert runtime(*words, "own0", "--", "sh", "-c", 'echo "$A" $B').stdout == "of the\nimage 2\n"


@effect("env", "A=$B:/c")
def set_variable_as_it_is(runtime: Runtime, words: list[str]) -> None:
    assert variable(runtime, *words) == "$B:/c"


@effect("env-default", "A=new")
def variable_default(runtime: Runtime, words: list[str]) -> None:
    assert variable(runtime, *words) == "host"
    assert variable(runtime, "--unset-env=A", *words) == "new"


@effect("env-no-expand")
def no_expansion(runtime: Runtime, words: list[str]) -> None:
    assert variable(runtime, *words, "--set-env=A=$B") == "$B"
    assert variable(runtime, "--set-env=A=$B", *words) == "b"


@effect("unset-env", "@(A|N*)")
def unset_variables(runtime: Runtime, words: list[str]) -> None:
    assert variable(runtime, *words) == "unset"
    assert runtime.output("echo $B", *words, env={"B": "b"}) == "b"


# Who joins whom.


def two_ranks(
    runtime: Runtime,
    words: list[str],
    scripts: tuple[str, str] = ("readlink /proc/self/ns/mnt",) * 2,
    *,
    image: str | None = None,
    same_parent: bool = True,
) -> tuple[str, str]:
    """Return the line that each script says, the second run by a ch-run of its own while the first one lives."""
    run = shlex.join([runtime.ch_run, *words, image or runtime.image, "--", "sh", "-c"])
    second = f"{run} {shlex.quote(scripts[1])}"
    result = runtime.machine.run(
        [
            *("bash", "-c"),
            f"""
            coproc FIRST {{ exec {run} {shlex.quote(f"{scripts[0]}; read line")}; }}
            read -r line <&"${{FIRST[0]}}"
            echo "$line"
            {second if same_parent else f"bash -c {shlex.quote(f'{second}; true')}"}
            echo >&"${{FIRST[1]}}"
            """,
        ]
    )
    assert result.stderr == ""
    first, other = result.stdout.splitlines()
    return first, other


def are_together(runtime: Runtime, words: list[str], *, same_parent: bool = True) -> bool:
    """Say whether two runs with `words` share a mount namespace."""
    first, second = two_ranks(runtime, words, same_parent=same_parent)
    return first == second


@effect("join")
@effect("join-ct", "2")
def join(runtime: Runtime, words: list[str]) -> None:
    assert are_together(runtime, words)
    assert not are_together(runtime, words, same_parent=False)
    assert not are_together(runtime, [])


@effect("join-tag", "these")
def join_tag(runtime: Runtime, words: list[str]) -> None:
    assert are_together(runtime, words, same_parent=False)


@effect("join-pid", "PID")
def join_pid(runtime: Runtime, words: list[str]) -> None:
    result = runtime.shell(
        f"""
        coproc FIRST {{ exec $CH_RUN $IMAGE -- sh -c 'readlink /proc/self/ns/mnt; read line'; }}
        read -r line <&"${{FIRST[0]}}"
        echo "$line"
        $CH_RUN {shlex.join(words).replace("PID", "$FIRST_PID")} $IMAGE -- readlink /proc/self/ns/mnt
        echo >&"${{FIRST[1]}}"
        """
    )
    first, second = result.stdout.split()
    assert first == second


# What ch-run says.


@effect("color")
@effect("color", "always")
def color(runtime: Runtime, words: list[str]) -> None:
    said = [runtime(*given, "/no/image", "--", "true").stderr for given in (words, [])]
    with_option, without = (re.sub(r"\[\d+\]", "", text) for text in said)
    assert with_option == without
    assert runtime.output("echo same", *words) == "same"


@effect("quiet")
def quiet(runtime: Runtime, words: list[str]) -> None:
    script = ["--cd-try=/no/where", runtime.image, "--", "sh", "-c", "echo out; echo err >&2"]
    result = runtime(*words * 3, *script)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert "warning: " in runtime(*script).stderr


@effect("verbose")
def verbose(runtime: Runtime, words: list[str]) -> None:
    assert (
        "info: left out, not here: --bind-try=/no/where"
        in runtime.sh("true", *words, "--bind-try=/no/where").stderr
    )
    assert runtime.sh("true", "--quiet", *words).returncode == 64


@effect("version")
def version(runtime: Runtime, words: list[str]) -> None:
    assert re.fullmatch(r"\d+\.\S+\n", runtime(*words).stdout)


@effect("errors")
def errors(runtime: Runtime, words: list[str]) -> None:
    result = runtime(*words)
    assert result.returncode == 0
    assert all(re.fullmatch(r"CH-\d{4}\t\d+\t[^\t]+\t[^\t]+", line) for line in result.stdout.splitlines())
    assert "\t31\tcan't find image\t" in result.stdout


@effect("json")
def as_json(runtime: Runtime, words: list[str]) -> None:
    described = json.loads(runtime("--version", *words).stdout)
    assert described["version"] == runtime("--version").stdout.strip()
    for feature in described["features"]:
        assert runtime(f"--feature={feature}").returncode == 0
    rows = json.loads(runtime("--errors", *words).stdout)
    lines = ["\t".join(str(row[key]) for key in ("code", "exit", "message", "remedy")) for row in rows]
    assert lines == runtime("--errors").stdout.splitlines()


@effect("feature", "join")
def feature(runtime: Runtime, words: list[str]) -> None:
    assert runtime(*words).returncode == 0


@effect("feature", "gc")
def feature_missing(runtime: Runtime, words: list[str]) -> None:
    result = runtime(*words)
    assert result.returncode == 87
    assert "error: feature not in this ch-run: gc" in result.stderr


@effect("trace", "127.0.0.1:5999/abc")
def trace(runtime: Runtime, words: list[str]) -> None:
    script = f"""
        exec 3< <(python3 -c 'import socket
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("127.0.0.1", 5999))
print("listening", flush=True)
print(ear.recv(2000).decode())')
        read -r line <&3
        $CH_RUN {shlex.join(words)} $IMAGE -- true
        cat <&3
        """
    assert re.fullmatch(r"abc login \d+ - - \d+( \w+=\d+)+\n", runtime.shell(script).stdout)


@effect("read-peer", "one:two")
def read_peer(runtime: Runtime, words: list[str]) -> None:
    script = 'cd $(mktemp -d); $CH_RUN --read-peer=two:one & $CH_RUN "$@"; wait'
    result = runtime.shell(f"set -- {shlex.join(words)}; {script}")
    assert (result.stdout, result.stderr) == ("read=0 dumpable=1\n" * 2, "")


@effect("clean-job", "4000000")
def clean_job(runtime: Runtime, words: list[str]) -> None:
    script = f"""
        place=/dev/shm/chlaunch-$(id -u)
        mkdir -p -m 700 $place
        : >$place/4000000.0.1-2 >$place/4000001.0.1-2
        $CH_RUN --verbose {shlex.join(words)}
        ls $place | grep 400000
        rm $place/400000*
        """
    result = runtime.shell(script)
    assert result.stdout == "4000001.0.1-2\n"
    assert re.fullmatch(r"ch-run\[\d+\]: info: clean: removed 4000000.0.1-2\n", result.stderr)


@effect("help")
def show_help(runtime: Runtime, words: list[str]) -> None:
    result = runtime(*words)
    assert result.returncode == 0
    assert "  -b, --bind=SRC[:DST]" in result.stdout


@effect("usage")
def show_usage(runtime: Runtime, words: list[str]) -> None:
    result = runtime(*words)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ch-run [")


@pytest.mark.parametrize(("show", "words"), ways())
def test_effect(runtime: Runtime, show: Show, words: list[str]) -> None:
    show(runtime, words)
