"""Variables and stages: who sees what, what is built for a target, and that a chain of values has an end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chlaunch.errors import BuildError, UsageError
from chlaunch.image.dockerfile import parse, scope, stages, syntax
from chlaunch.image.dockerfile.place import Place, Source
from chlaunch.image.dockerfile.scope import Scope
from chlaunch.image.manifest import Platform

NOWHERE = Place(Source("Dockerfile", ()), 1, 1, "")


def read(text: str) -> syntax.Dockerfile:
    """Return what a Dockerfile says."""
    return parse.parse(text.encode(), "Dockerfile")


def plan(text: str, target: str = "", **given: str) -> stages.Plan:
    """Return what is built for a target."""
    return stages.plan(read(text), target, given, {"TARGETARCH": "amd64"})


def test_only_what_a_target_needs() -> None:
    text = "FROM a AS a1\nFROM b AS b1\nFROM a1 AS c\nCOPY --from=b1 /x /\nFROM d AS e\nRUN --mount=from=c,target=/c x\n"
    assert [step.stage.name for step in plan(text).steps] == ["a1", "b1", "c", "e"]
    assert [step.stage.name for step in plan(text, "C").steps] == ["a1", "b1", "c"]
    assert [step.stage.name for step in plan(text, "1").steps] == ["b1"]
    (*_, c, e) = plan(text).steps
    assert (c.base, c.image, c.needs, c.images) == (0, "", frozenset({0, 1}), frozenset())
    assert (e.base, e.image, e.needs, e.images) == (None, "d", frozenset({2}), frozenset())


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="--target: there is no stage finall") as caught:
        plan("FROM a AS final\n", "finall")
    assert caught.value.hint == "did you mean final?"
    with pytest.raises(UsageError, match="there is no stage 1"):
        plan("FROM a\n", "1")


def test_a_stage_of_the_name_of_its_image() -> None:
    first, second = plan("FROM x AS x\nFROM x\n").steps
    assert (first.base, first.image) == (None, "x")
    assert (second.base, second.image) == (0, "")


def test_the_last_stage_of_a_name_counts() -> None:
    *_, last = plan("FROM a AS n\nFROM b AS n\nFROM c\nCOPY --from=n x y\nCOPY --from=img:1 x y\n").steps
    assert last.needs == {1}
    assert last.images == {"img:1"}


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=10))
def test_what_is_needed_is_built_before(links: list[list[int]]) -> None:
    text = "".join(
        f"FROM {'img' if not sources or sources[0] >= index else f's{sources[0]}'} AS s{index}\n"
        + "".join(f"COPY --from=s{source} a b\n" for source in sources if source < index)
        for index, sources in enumerate(links)
    )
    built: set[int] = set()
    steps = plan(text).steps
    for step in steps:
        assert step.needs <= built
        built.add(step.stage.index)
    needed = {needs for step in steps for needs in step.needs}
    assert built == needed | {len(links) - 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM $A\n", "1:6: $A is empty"),
        ("ARG A\nFROM ${A}\n", "2:6: ${A} is empty"),
        ("FROM --platform=$P a\n", "1:17: $P is empty"),
        ("ARG P=a/b/c/d\nFROM --platform=$P a\n", "2:6: --platform=a/b/c/d is no platform"),
        ("FROM a${A:?give-it}\n", "1:6: A: give-it"),
        ('ARG A="${B:?give B}"\nFROM $A\n', "1:7: B: give B"),
    ],
)
def test_what_from_can_not_be(text: str, why: str) -> None:
    with pytest.raises(BuildError) as caught:
        plan(text)
    assert f"Dockerfile:{why}" in caught.value.message


def test_platforms_are_arguments() -> None:
    found = scope.platform_arguments(Platform("amd64"), Platform("arm", "v7"))
    assert found == {
        "BUILDPLATFORM": "linux/amd64", "BUILDOS": "linux", "BUILDARCH": "amd64", "BUILDVARIANT": "",
        "TARGETPLATFORM": "linux/arm/v7", "TARGETOS": "linux", "TARGETARCH": "arm", "TARGETVARIANT": "v7",
    }  # fmt: skip


def test_outside() -> None:
    text = "ARG A=1\nARG B=${A}2 C\nARG D=$TARGETARCH-$TARGETSTAGE\nFROM a AS last\n"
    assert plan(text).outside == {
        "TARGETARCH": "amd64",
        "TARGETSTAGE": "last",
        "A": "1",
        "B": "12",
        "D": "amd64-last",
    }
    found = plan(text, A="x", C="y", TARGETARCH="z", OTHER="o").outside
    assert found == {"TARGETARCH": "z", "TARGETSTAGE": "last", "A": "x", "B": "x2", "C": "y", "D": "z-last"}


def done(state: Scope, text: str) -> None:
    """Go through instructions that are ARG or ENV."""
    for instruction in read(f"FROM a\n{text}").stages[0].instructions:
        expanded = instruction.expanded(state)
        if isinstance(expanded, syntax.Arg):
            state.set_arguments(expanded.pairs, expanded.place)
        elif isinstance(expanded, syntax.Env):
            state.set_environment(expanded.pairs, expanded.place)


def test_who_wins() -> None:
    state = Scope({"G": "given", "P": "p"}, {"O": "outside", "G": "outside"}, {"E": "base"})
    done(state, "ARG O\nARG G=default\nARG E=arg\nARG N\nARG D=1 F=$D\nARG D\nARG O2=$O-$E\n")
    assert state.visible == {
        "O": "outside",
        "G": "given",
        "E": "base",
        "D": "1",
        "F": "1",
        "O2": "outside-base",
    }
    assert dict(state.declared) == state.visible
    done(state, "ENV D=env X=$D\nARG D=arg\nENV Y=$D\n")
    assert (state.value("D"), state.value("X"), state.value("Y")) == ("env", "1", "env")
    assert "P" not in state.visible


def test_a_child_stage_inherits_and_does_not_give_back() -> None:
    state = Scope()
    done(state, "ARG A=1\nENV E=1\n")
    child = state.child()
    done(child, "ARG B=$A\nENV E=2\n")
    assert child.visible == {"A": "1", "B": "1", "E": "2"}
    assert state.visible == {"A": "1", "E": "1"}


def test_proxies_reach_run_and_nothing_else() -> None:
    state = Scope({"HTTP_PROXY": "http://p", "no_proxy": "x", "SECRET": "s"})
    assert state.for_run == {"HTTP_PROXY": "http://p", "no_proxy": "x"}
    assert not state.declared
    assert state.visible == {}
    done(state, "ARG HTTP_PROXY\n")
    assert state.declared == (("HTTP_PROXY", "http://p"),)


def test_unused_arguments() -> None:
    file = read("ARG A\nFROM a\nARG B C=1\n")
    assert stages.unused(file, {"A": "", "B": "", "D": "", "https_proxy": ""}) == ["D"]


def test_chains_of_values_have_an_end() -> None:
    text = "ENV x0=0123456789\n" + "".join(f"ENV x{n + 1}=$x{n}$x{n}\n" for n in range(40))
    with pytest.raises(BuildError, match=r"Dockerfile:16:.*Linux starts nothing with it"):
        done(Scope(), text)
    kilobyte = "x" * 1024
    with pytest.raises(BuildError, match="Linux starts nothing with them"):
        done(
            Scope(), f"ENV a={kilobyte}\nENV b={'$a' * 100}\n" + "".join(f"ARG c{n}=$b\n" for n in range(80))
        )
    with pytest.raises(BuildError, match="values together"):
        done(Scope(), f"ENV a={kilobyte}\nENV b={'$a' * 100}\nENV " + " ".join(f"c{n}=$b" for n in range(80)))
    state = Scope(environment={"b": "x" * 100_000})
    (label,) = read("FROM a\nLABEL " + " ".join(f"c{n}=$b" for n in range(80))).stages[0].instructions
    with pytest.raises(BuildError, match="values together"):
        label.expanded(state)


@pytest.mark.parametrize(
    ("current", "path", "wanted"),
    [("/", "a", "/a"), ("/a", "b/../c", "/a/c"), ("/a", "/b//c/", "/b/c"), ("/a", "../../..", "/"), ("", "a", "/a"),
     ("/a", "//b", "/b"), ("/a", ".", "/a")],
)  # fmt: skip
def test_working_directories(current: str, path: str, wanted: str) -> None:
    assert syntax.Workdir(NOWHERE, path).under(current) == wanted
