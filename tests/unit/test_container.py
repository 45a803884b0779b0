"""The container: the same in C and Python, and its rendering."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from chlaunch.launch.container import Bind, Container, VariableChange, words

HEADER = Path(__file__).resolve().parents[2] / "chlaunch/runtime/container.h"


def fields(struct: str) -> list[str]:
    """Return the names of a C struct's fields, without the counts of its arrays."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    found = re.search(rf"\nstruct {struct} {{(.*?)\n}};", text, re.DOTALL)
    assert found
    names = re.findall(r"(\w+);", found[1])
    return [name for name in names if not name.endswith("_count")]


def test_same_fields_as_in_c() -> None:
    for struct, ours in (("container", Container), ("bind", Bind), ("variable_change", VariableChange)):
        assert [field.name for field in dataclasses.fields(ours)] == fields(struct)


def test_same_kinds_of_changes_as_in_c() -> None:
    kinds = re.findall(r"\bVARIABLE_(\w+),", HEADER.read_text())
    assert [kind.lower() for kind in kinds] == ["set", "unset", "default", "file", "file_nul"]


def test_nothing_but_an_image() -> None:
    assert words(Container("/i", command=("true",))) == ("/i", "--", "true")


EVERYTHING = Container(
    image="/i",
    storage="/s",
    binds=(
        *(Bind("/a", "/a"), Bind("/a", "/b", read_only=True), Bind("$X", "$X", optional=True)),
        *(Bind("/b:/a", "/c", read_only=True, kind="layers"), Bind("9m", "/d", kind="tmpfs")),
        Bind("", "/e", kind="tmpfs"),
    ),
    directory="/d",
    uid=0,
    gid=7,
    write=True,
    write_fake="9m",
    write_fake_rank=True,
    private_tmp=True,
    home=True,
    keep_passwd=True,
    seccomp=True,
    fuse_single=True,
    ld_cache=("/l", "/m"),
    variables=(
        VariableChange("unset", "LD_*"),
        VariableChange("file", "", None),
        VariableChange("file", "", "/f"),
        VariableChange("file_nul", "", "/g"),
        VariableChange("set", "A", "x y"),
        VariableChange("default", "B", ""),
        VariableChange("set", "C", "$x", literal=True),
    ),
    join=True,
    join_tag="t",
    join_pid=3,
    command=("sh", "-c", "a b"),
)


def test_everything() -> None:
    assert words(EVERYTHING) == (
        *("--bind=/a", "--bind-ro=/a:/b", "--bind-try=$X", "--bind-layers=/b:/a:/c", "--tmpfs=/d:9m"),
        *("--tmpfs=/e", "--cd=/d", "--write", "--private-tmp", "--home"),
        *("--no-passwd", "--seccomp", "--fuse-single", "--storage=/s", "--write-fake=9m"),
        *("--write-fake-scope=rank", "--uid=0", "--gid=7", "--ld-cache=/l", "--ld-cache=/m"),
        *("--unset-env=LD_*", "--set-env", "--set-env=/f", "--set-env0=/g", "--set-env=A=x y"),
        *("--env-default=B=", "--env=C=$x", "--join", "--join-tag=t", "--join-pid=3"),
        *("/i", "--", "sh", "-c", "a b"),
    )


def test_optional_directory() -> None:
    assert words(Container("/i", directory="/d", directory_optional=True))[0] == "--cd-try=/d"


def test_every_option_is_one_ch_run_has() -> None:
    options = (HEADER.parent / "option_rows.c").read_text()
    described = words(EVERYTHING)
    for word in described[: described.index("/i")]:
        assert f'{{"{word[2:].partition("=")[0]}",' in options, word
