"""CDI files: what is taken, what is refused and how it is said, and what becomes of it."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chlaunch.cdi import builder, document, render, resolve, spec
from chlaunch.errors import CdiError, UsageError

NODE = {"deviceNodes": [{"path": "/dev/null"}]}


def described(version: str = "1.0.0", **fields: Any) -> dict[str, Any]:
    """Return a specification with one device, d, that is /dev/null, changed by fields."""
    whole = {
        "cdiVersion": version,
        "kind": "vendor.com/class",
        "devices": [{"name": "d", "containerEdits": NODE}],
    }
    return {name: value for name, value in {**whole, **fields}.items() if value is not ...}


def device(**edits: Any) -> list[dict[str, Any]]:
    """Return a list of one device, d, with these edits."""
    return [{"name": "d", "containerEdits": edits}]


def written(path: Path, data: object) -> str:
    """Write data to path, as JSON or YAML by its name, and return path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data) if path.suffix == ".json" else yaml.safe_dump(data))
    return str(path)


def parsed(path: Path, data: object) -> spec.Spec:
    """Return what is made of data after it went through a file."""
    return spec.parse(document.read(written(path, data)))


def refused(path: Path, data: object) -> CdiError:
    """Return the error that data in a file at path gives."""
    with pytest.raises(CdiError) as caught:
        parsed(path, data)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 31
    return caught.value


def plain_of(tmp_path: Path, **edits: Any) -> render.Plain:
    """Return what a device with these edits comes to."""
    file = written(tmp_path / "x.json", described(devices=device(**edits)))
    return render.plain(resolve.resolve([file], ()))


def unplain(tmp_path: Path, **edits: Any) -> CdiError:
    """Return the error of a device with these edits."""
    with pytest.raises(CdiError) as caught:
        plain_of(tmp_path, **edits)
    assert str(tmp_path / "x.json") in caught.value.message
    assert "vendor.com/class=d" in caught.value.message
    return caught.value


EVERYTHING = described(
    version="1.1.0",
    annotations={"a": "b"},
    containerEdits={"env": ["A=1"], "additionalGIDs": [0]},
    devices=[
        {
            "name": "0:1",
            "annotations": {"c": "d"},
            "containerEdits": {
                "env": ["B=", "C=a=b"],
                "deviceNodes": [
                    {
                        "path": "/dev/x",
                        "hostPath": "/dev/null",
                        "type": "c",
                        "major": 1,
                        "minor": 3,
                        "fileMode": 0o660,
                        "permissions": "rw",
                        "uid": 0,
                        "gid": 44,
                    },
                    {"path": "/dev/y", "hostPath": None, "permissions": "none"},
                ],
                "mounts": [
                    {"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"},
                    {"hostPath": "tmpfs", "containerPath": "/t", "type": "tmpfs"},
                ],
                "hooks": [
                    {
                        "hookName": "createContainer",
                        "path": "/h",
                        "args": ["h", "x"],
                        "env": ["D=1"],
                        "timeout": 5,
                    }
                ],
                "intelRdt": {"closID": "x", "schemata": ["L3:0=f"], "enableMonitoring": True},
                "netDevices": [{"hostInterfaceName": "eth1", "name": "eth0"}],
                "additionalGIDs": [44],
            },
        }
    ],
)


@pytest.mark.parametrize("name", ["x.json", "x.yaml"])
def test_every_field(tmp_path: Path, name: str) -> None:
    found = parsed(tmp_path / name, EVERYTHING)
    assert found == spec.Spec(
        str(tmp_path / name),
        "vendor.com/class",
        (
            spec.Device(
                "0:1",
                spec.ContainerEdits(
                    env=("B=", "C=a=b"),
                    nodes=(spec.DeviceNode("/dev/x", "/dev/null", "c"), spec.DeviceNode("/dev/y", "/dev/y")),
                    mounts=(spec.Mount("/a", "/b", ("ro",), "bind"), spec.Mount("tmpfs", "/t", (), "tmpfs")),
                    hooks=(spec.Hook("createContainer", "/h", ("h", "x")),),
                    gids=(44,),
                    intel_rdt=True,
                    interfaces=("eth1",),
                ),
            ),
        ),
        spec.ContainerEdits(env=("A=1",), gids=(0,)),
    )


@pytest.mark.parametrize("version", spec.VERSIONS)
def test_versions(tmp_path: Path, version: str) -> None:
    assert parsed(tmp_path / "x.json", described(version)).kind == "vendor.com/class"
    assert parsed(tmp_path / "x.yaml", described(f"v{version}")).kind == "vendor.com/class"


@pytest.mark.parametrize("version", ["0.2.0", "1", "1.2.0", "", "0.5.0 "])
def test_other_versions(tmp_path: Path, version: str) -> None:
    error = refused(tmp_path / "x.json", described(version))
    assert error.message.endswith(f"cdiVersion is {version!r}; known are {', '.join(spec.VERSIONS)}")


@pytest.mark.parametrize(
    ("since", "place", "fields"),
    [
        (
            "0.4.0",
            "devices[0].containerEdits.mounts[0].type",
            {"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "bind"}]},
        ),
        (
            "0.5.0",
            "devices[0].containerEdits.deviceNodes[0].hostPath",
            {"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]},
        ),
        ("0.7.0", "devices[0].containerEdits.intelRdt", {"intelRdt": {"enableCMT": True}}),
        ("0.7.0", "devices[0].containerEdits.additionalGIDs", {"additionalGIDs": [1]}),
        (
            "1.1.0",
            "devices[0].containerEdits.netDevices",
            {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]},
        ),
        ("1.1.0", "devices[0].containerEdits.intelRdt.schemata", {"intelRdt": {"schemata": ["x"]}}),
    ],
)
def test_edits_that_came_later(tmp_path: Path, since: str, place: str, fields: dict[str, Any]) -> None:
    data = described(devices=device(**fields))
    assert parsed(tmp_path / "x.json", {**data, "cdiVersion": since})
    before = spec.VERSIONS[spec.VERSIONS.index(since) - 1]
    error = refused(tmp_path / "x.json", {**data, "cdiVersion": before})
    assert f"x.json: {place} needs cdiVersion {since} or later" in error.message
    assert error.message.endswith(f"the file says {before}")


@pytest.mark.parametrize(
    ("since", "fields"),
    [
        ("0.5.0", {"devices": [{"name": "0", "containerEdits": NODE}]}),
        ("0.6.0", {"annotations": {"a": "b"}}),
        ("0.6.0", {"devices": [{"name": "d", "annotations": {"a": "b"}, "containerEdits": NODE}]}),
        ("0.6.0", {"kind": "vendor.com/a.b"}),
        ("0.7.0", {"containerEdits": {"additionalGIDs": [1]}}),
    ],
)
def test_other_things_that_came_later(tmp_path: Path, since: str, fields: dict[str, Any]) -> None:
    assert parsed(tmp_path / "x.json", described(since, **fields))
    before = spec.VERSIONS[spec.VERSIONS.index(since) - 1]
    assert (
        f"needs cdiVersion {since} or later"
        in refused(tmp_path / "x.json", described(before, **fields)).message
    )


def test_an_empty_field_needs_no_version(tmp_path: Path) -> None:
    mount = {"hostPath": "/a", "containerPath": "/b", "type": ""}
    edits = {
        "mounts": [mount],
        "additionalGIDs": [],
        "intelRdt": None,
        "deviceNodes": [{"path": "/dev/a", "hostPath": ""}],
    }
    assert parsed(tmp_path / "x.json", described("0.3.0", annotations={}, devices=device(**edits)))


E_ = "devices[0].containerEdits"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the file must be an object"),
        ("text", "the file must be an object"),
        (described(cdiVersion=...), "the file needs cdiVersion"),
        (described(kind=...), "the file needs kind"),
        (described(kind=None), "the file needs kind"),
        (described(devices=...), "the file needs devices"),
        (described(cdiVersion=1), "cdiVersion must be a string"),
        (described(devcies=[]), "the file has an unknown field 'devcies' (did you mean devices?)"),
        (described(x=1), "the file has an unknown field 'x'"),
        (described(kind="vendor.com"), "kind must be vendor.com/class, not 'vendor.com'"),
        (described(kind="vendor.com/a/b"), "kind must be vendor.com/class"),
        (described(kind="0vendor/class"), "kind must be vendor.com/class"),
        (described(kind="vendor.com/class-"), "kind must be vendor.com/class"),
        (described(devices={}), "devices must be a list"),
        (described(devices=[]), "devices is empty"),
        (described(devices=["d"]), "devices[0] must be an object"),
        (described(devices=[{"name": "d"}]), "devices[0] needs containerEdits"),
        (described(devices=[{"containerEdits": NODE}]), "devices[0] needs name"),
        (described(devices=[{"name": "", "containerEdits": NODE}]), "devices[0].name must be letters"),
        (described(devices=[{"name": "a b", "containerEdits": NODE}]), "devices[0].name must be letters"),
        (described(devices=[{"name": "a/../b", "containerEdits": NODE}]), "not 'a/../b'"),
        (described(devices=[{"name": 0, "containerEdits": NODE}]), "devices[0].name must be a string"),
        (described(devices=device() * 2), f"{E_} is empty: a device must be something"),
        (described(devices=device(**NODE) * 2), "devices has two devices d"),
        (described(annotations=[]), "annotations must be an object"),
        (described(annotations={"a": 1}), "annotations.a must be a string"),
        (described(containerEdits=[]), "containerEdits must be an object"),
        (described(devices=device(env="A=1")), f"{E_}.env must be a list"),
        (described(devices=device(env=["A"])), f"{E_}.env[0] must be NAME=VALUE, not 'A'"),
        (described(devices=device(env=["=A"])), f"{E_}.env[0] must be NAME=VALUE"),
        (described(devices=device(env=["A=\0"])), f"{E_}.env[0] has a control character in it: 'A=\\x00'"),
        (described(devices=device(env=["A=\ud800"])), f"{E_}.env[0] has a control character"),
        (described(devices=device(env=["A=" + "x" * 100_000])), f"{E_}.env[0] is longer than 100000"),
        (described(devices=device(env=["A=1"] * 10_001)), f"{E_}.env has more than 10000 items"),
        (described(devices=device(deviceNodes=[{}])), f"{E_}.deviceNodes[0] needs path"),
        (
            described(devices=device(deviceNodes=[{"path": "x"}])),
            f"{E_}.deviceNodes[0].path must be an absolute",
        ),
        (
            described(devices=device(deviceNodes=[{"path": "/x", "type": "s"}])),
            "type must be b, c, u or p, not 's'",
        ),
        (
            described(devices=device(deviceNodes=[{"path": "/x", "major": -1}])),
            "major must be a whole number from 0",
        ),
        (
            described(devices=device(deviceNodes=[{"path": "/x", "minor": True}])),
            "minor must be a whole number",
        ),
        (described(devices=device(deviceNodes=[{"path": "/x", "uid": 2**32}])), "uid must be a whole number"),
        (described(devices=device(deviceNodes=[{"path": "/x", "gid": 1.0}])), "gid must be a whole number"),
        (
            described(devices=device(deviceNodes=[{"path": "/x", "fileMode": "a"}])),
            "fileMode must be a whole number",
        ),
        (
            described(devices=device(deviceNodes=[{"path": "/x", "permissions": "rx"}])),
            "permissions must be of",
        ),
        (
            described(devices=device(mounts=[{"hostPath": "/" + "x" * 4095, "containerPath": "/a"}])),
            "hostPath is longer than a path can be: '/xxx",
        ),
        (described(devices=[{"name": "x" * 254, "containerEdits": NODE}]), "devices[0].name must be letters"),
        (described(devices=device(mounts=[{"hostPath": "/a"}])), f"{E_}.mounts[0] needs containerPath"),
        (described(devices=device(mounts=[{"containerPath": "/a"}])), f"{E_}.mounts[0] needs hostPath"),
        (
            described(devices=device(mounts=[{"hostPath": "a", "containerPath": "/a"}])),
            "hostPath must be an absolute",
        ),
        (
            described(devices=device(mounts=[{"hostPath": "/a", "containerPath": ""}])),
            "containerPath must be an abs",
        ),
        (
            described(devices=device(mounts=[{"hostPath": "/a", "containerPath": "/a", "options": "ro"}])),
            "must be a list",
        ),
        (described(devices=device(hooks=[{"path": "/a"}])), f"{E_}.hooks[0] needs hookName"),
        (
            described(devices=device(hooks=[{"hookName": "start", "path": "/a"}])),
            "hookName must be one of prestart,",
        ),
        (
            described(devices=device(hooks=[{"hookName": "prestart", "path": ""}])),
            "hooks[0].path must be an absolute",
        ),
        (
            described(devices=device(hooks=[{"hookName": "prestart", "path": "/a", "timeout": "1"}])),
            "timeout must be",
        ),
        (
            described(devices=device(hooks=[{"hookName": "prestart", "path": "/a", "env": ["x"]}])),
            "env[0] must be NAME",
        ),
        (described(devices=device(additionalGIDs=["1"])), f"{E_}.additionalGIDs[0] must be a whole number"),
        (described(devices=device(intelRdt={"enableCMT": "yes"})), "enableCMT must be true or false"),
        (described(devices=device(intelRdt={"closID": 1})), "closID must be a string"),
        (
            described("1.1.0", devices=device(netDevices=[{"name": "a"}])),
            "netDevices[0] needs hostInterfaceName",
        ),
    ],
)
def test_errors_name_file_place_and_problem(tmp_path: Path, data: object, message: str) -> None:
    error = refused(tmp_path / "x.json", data)
    assert f"{tmp_path}/x.json: " in error.message
    assert message in error.message
    assert "make it again" in error.hint
    assert error.message.isprintable()


TEXTS = {
    "x.json": [
        ("", r":1: not JSON: Expecting value"),
        ("{\n'a': 1}", r":2: not JSON: Expecting property name"),
        ('{"kind": "a", "kind": "b"}', r": field 'kind' is there twice"),
        ("[" * 100_000, r": nested too deeply"),
        ("1" * 5000, r": not JSON: Exceeds the limit"),
        ("null", r": empty"),
    ],
    "x.yaml": [
        ("", r": empty"),
        ("# nothing\n", r": empty"),
        ("a: b: c", r":1: not YAML: mapping values are not allowed"),
        ("\n\t- a", r":2: not YAML: "),
        ("a: \0", r":1: not YAML: "),
        ("kind: a\nkind: b", r":2: a field is there twice"),
        ("? [a]\n: b", r":1: a key must be a plain word"),
        ("a: 1\n---\na: 2", r":2: more than one document"),
        ("a: *b", r":1: (an alias of nothing|not YAML: found undefined alias)"),
        ("a: &a [*a]", r":1: (an alias of nothing|not YAML: found undefined alias)"),
        ("a: !!python/object/apply:os.system [x]", r":1: tags have no place here"),
        ("a: !!binary aGk=", r":1: tags have no place here"),
        ("- !!int 1:1:1", r":1: tags have no place here"),
        ("[" * 40 + "]" * 40, r":1: nested too deeply"),
        ("[" * 100_000, r":\d+: (nested too deeply|not YAML: )"),
        ("<<: {a: 1}", r": the file has an unknown field '<<'"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "message"), [(name, *case) for name, cases in TEXTS.items() for case in cases]
)
def test_texts_that_are_neither(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(CdiError, match=rf"^{re.escape(str(file))}{message}"):
        spec.parse(document.read(str(file)))


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    file = tmp_path / "x.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(CdiError, match=r"x\.yaml:\d+: more than 200000 values, those of aliases included"):
        document.read(str(file))


def test_aliases_as_writers_of_yaml_make_them(tmp_path: Path) -> None:
    edits = {"env": ["A=1"]}
    data = described(devices=[{"name": name, "containerEdits": edits} for name in ("a", "b")])
    file = written(tmp_path / "x.yaml", data)
    assert "&id" in Path(file).read_text()
    assert [device.edits.env for device in spec.parse(document.read(file)).devices] == [("A=1",)] * 2


@pytest.mark.parametrize("loader", ["libyaml's", "PyYAML's"])
def test_both_parsers_of_pyyaml(monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    if loader == "PyYAML's":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    text = "a: [1, 0x1, 010, '1', 1.5, yes, true, ~, 1:30, 2020-01-01, -3, 99999999999999999999]\nb: &x {c: |\n  d\n}\n"
    assert builder.build(text.replace("&x {c: |\n  d\n}", "&x {c: d}\ne: *x")) == {
        "a": [1, "0x1", 8, "1", "1.5", "yes", True, None, "1:30", "2020-01-01", -3, "99999999999999999999"],
        "b": {"c": "d"},
        "e": {"c": "d"},
    }
    with pytest.raises(builder.BuildError, match=r"nested|depth"):
        builder.build("[" * 5000)


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "latin.json").write_bytes(b"\xff")
    (tmp_path / "large.json").write_bytes(b"[" + b" " * 2048)
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf{}")
    monkeypatch.setattr(document, "SIZE_MAX", 1024)
    for name, message in (
        ("fifo.json", "not a regular file"),
        ("latin.json", "not UTF-8"),
        ("large.json", "larger than"),
        ("gone.json", "No such file or directory"),
        (".", "Is a directory"),
    ):
        with pytest.raises(CdiError, match=message):
            document.read(f"{tmp_path}/{name}")
    assert document.read(f"{tmp_path}/marked.json").data == {}


def names_of(requests: list[str | None], *directories: Path) -> list[str]:
    """Return what the edits for requests are for."""
    return [part.what for part in resolve.resolve(requests, [str(path) for path in directories]).parts]


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    """Return two directories: a.com/x with 0 and 1, b.com/y with all and z; the second has an a.com/x=1 too."""
    low, high = tmp_path / "low", tmp_path / "high"
    for where, name, kind, devices in (
        (low, "a.json", "a.com/x", ("0", "1")),
        (low, "b.yaml", "b.com/y", ("all", "z")),
        (high, "a.yaml", "a.com/x", ("1",)),
    ):
        items = [
            {"name": item, "containerEdits": {"env": [f"WHERE={where.name}/{name}"]}} for item in devices
        ]
        written(where / name, described(kind=kind, devices=items, containerEdits={"env": ["ONCE=1"]}))
    (low / "c.json.bak").write_text("not a specification")
    (low / "d.json").mkdir()
    return low, high


def test_requests(directories: tuple[Path, Path]) -> None:
    low, high = directories
    assert names_of(["a.com/x=0"], low, high) == ["a.com/x", "a.com/x=0"]
    assert names_of(["a.com/x=0", "a.com/x=1", "a.com/x=0"], low) == ["a.com/x", "a.com/x=0", "a.com/x=1"]
    assert (
        names_of(["a.com/x"], low) == names_of(["a.com/x=all"], low) == ["a.com/x", "a.com/x=0", "a.com/x=1"]
    )
    assert names_of(["b.com/y"], low) == ["b.com/y", "b.com/y=all", "b.com/y=z"]
    assert names_of(["b.com/y=all"], low) == ["b.com/y", "b.com/y=all"]
    assert names_of([None], low) == [
        "a.com/x",
        "a.com/x=0",
        "a.com/x=1",
        "b.com/y",
        "b.com/y=all",
        "b.com/y=z",
    ]
    assert names_of([f"{high}/a.yaml"]) == ["a.com/x", "a.com/x=1"]
    assert names_of([], low) == []


def test_a_file_by_its_relative_name(directories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directories[1])
    assert names_of(["./a.yaml"]) == names_of(["a.yaml"]) == ["a.com/x", "a.com/x=1"]


def test_later_directories_win(directories: tuple[Path, Path], tmp_path: Path) -> None:
    low, high = directories
    for order, where in (((low, high), "high/a.yaml"), ((high, low), "low/a.json")):
        edits = resolve.resolve(["a.com/x=1"], [str(path) for path in order])
        assert edits.parts[-1].edits.env == (f"WHERE={where}",)
        assert edits.parts[-1].file == f"{tmp_path}/{where}"
    # 0 is described by one only, and of both files the edits of the whole are made.
    assert names_of(["a.com/x"], low, high) == ["a.com/x", "a.com/x=0", "a.com/x", "a.com/x=1"]


def test_a_conflict_matters_to_those_who_ask(directories: tuple[Path, Path]) -> None:
    low, high = directories
    written(low / "e.json", described(kind="a.com/x", devices=[{"name": "1", "containerEdits": NODE}]))
    assert names_of(["a.com/x=0"], low) == ["a.com/x", "a.com/x=0"]
    for request in ("a.com/x=1", "a.com/x", None):
        with pytest.raises(CdiError) as caught:
            names_of([request], low)
        assert (
            caught.value.message == f"two files describe CDI device a.com/x=1: {low}/a.json and {low}/e.json"
        )
        assert f"{low}/a.json" in caught.value.hint
    assert names_of(["a.com/x=1"], low, high) == ["a.com/x", "a.com/x=1"]


@pytest.mark.parametrize(
    ("request_", "message", "hint"),
    [
        ("a.com/x=2", "can't find CDI device a.com/x=2 in ", "there is a.com/x=0, a.com/x=1"),
        (
            "a.com/y",
            "can't find CDI device a.com/y in ",
            "there is a.com/x=0, a.com/x=1, b.com/y=all, b.com/y=z",
        ),
        ("nowhere.json", "can't read CDI file nowhere.json: No such file", ""),
    ],
)
def test_what_is_not_there(directories: tuple[Path, Path], request_: str, message: str, hint: str) -> None:
    with pytest.raises(CdiError) as caught:
        names_of([request_], directories[0])
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_where_nothing_is(tmp_path: Path) -> None:
    for request in (None, "a.com/x", "a.com/x=0"):
        with pytest.raises(CdiError, match=rf"^can't find .* in {re.escape(str(tmp_path))}/gone$") as caught:
            names_of([request], tmp_path / "gone")
        assert resolve.VARIABLE in caught.value.hint


def test_of_many_devices_the_nearest_are_named(tmp_path: Path) -> None:
    items = [{"name": f"d{number}", "containerEdits": NODE} for number in range(100)]
    written(tmp_path / "x.json", described(devices=items))
    with pytest.raises(CdiError) as caught:
        names_of(["vendor.com/class=e42"], tmp_path)
    assert "d42" in caught.value.hint
    assert caught.value.hint.endswith(" and 92 more")


@pytest.mark.parametrize(
    "request_", ["gpu", "", "a.com/x=", "a.com/x=a b", "=x", "a.com/=x", "a.com/x/y=0", "x\x1b[31m/y"]
)
def test_words_that_are_no_request(tmp_path: Path, request_: str) -> None:
    with pytest.raises(UsageError, match="not a CDI device") as caught:
        names_of([request_], tmp_path)
    assert caught.value.message.isprintable()
    assert caught.value.exit_code == 64


def test_a_broken_file_is_a_warning_unless_it_is_needed(directories: tuple[Path, Path]) -> None:
    low, _ = directories
    (low / "bad.json").write_text("{")
    edits = resolve.resolve(["a.com/x=0"], [str(low)])
    (warning,) = edits.warnings
    assert warning.startswith(f"CDI file left out: {low}/bad.json:1: not JSON")
    assert render.plain(edits).warnings == edits.warnings
    with pytest.raises(CdiError) as caught:
        resolve.resolve(["c.com/x=0"], [str(low)])
    assert f"broken: {low}/bad.json:1: not JSON" in caught.value.hint
    with pytest.raises(CdiError, match=r"bad\.json:1: not JSON"):
        resolve.resolve([f"{low}/bad.json"], ())


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CdiError) as caught:
        names_of([None], tmp_path / "file")
    assert "Not a directory" in caught.value.hint


def test_where_to_look() -> None:
    assert resolve.directories(None, {}) == ("/etc/cdi", "/var/run/cdi")
    assert resolve.directories("", {"CH_RUN_CDI_DIRS": ""}) == ("/etc/cdi", "/var/run/cdi")
    assert resolve.directories(None, {"CH_RUN_CDI_DIRS": "/a::b"}) == ("/a", "b")
    assert resolve.directories("/c", {"CH_RUN_CDI_DIRS": "/a"}) == ("/c",)


def test_words(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    plain = plain_of(
        tmp_path,
        env=["A=1", "B=$HOME: x", "A=2"],
        deviceNodes=[{"path": "/dev/null"}, {"path": "/dev/random", "hostPath": "/dev/zero", "type": "u"}],
        mounts=[
            {"hostPath": f"{tmp_path}/a", "containerPath": "/opt/a/b", "options": ["rw", "ro", "nosuid"]},
            {"hostPath": f"{tmp_path}/a", "containerPath": "/opt//a/"},
            {"hostPath": "/proc", "containerPath": "/opt/a/b", "options": ["ro", "rw"]},
            {"hostPath": "/dev/full", "containerPath": "/dev/full", "options": ["ro"]},
        ],
    )
    assert render.words(plain) == (
        "--bind=/dev/zero:/dev/random",
        f"--bind={tmp_path}/a:/opt/a",
        "--bind=/proc:/opt/a/b",
        "--env=A=2",
        "--env=B=$HOME: x",
    )
    assert [seen.name for seen in plain.visible] == ["/dev/null", "/dev/full"]
    assert plain.warnings == ()


@pytest.mark.parametrize(
    ("edits", "message", "hint"),
    [
        (
            {"deviceNodes": [{"path": "/dev/gone"}]},
            "needs device file /dev/gone of this host: No such",
            "driver",
        ),
        (
            {"deviceNodes": [{"path": "/dev/null", "type": "b"}]},
            "on this host that is none of type b",
            "again",
        ),
        (
            {"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]},
            "on this host that is none",
            "again",
        ),
        (
            {"mounts": [{"hostPath": "/gone", "containerPath": "/a"}]},
            "needs path /gone of this host: No such",
            "",
        ),
        (
            {"mounts": [{"hostPath": "/", "containerPath": "/a:b"}]},
            "needs /a:b, and a path with a colon",
            "copy",
        ),
        (
            {"deviceNodes": [{"path": "/dev/gone", "hostPath": "/dev/null"}]},
            "wants /dev/null at /dev/gone, which this host does not have",
            "copy",
        ),
        (
            {"mounts": [{"hostPath": "tmpfs", "containerPath": "/t", "type": "tmpfs"}]},
            "wants a mount of type tmpfs at /t, and ch-run makes bind mounts only",
            "bind a directory",
        ),
    ],
)
def test_what_can_not_be_done_here(tmp_path: Path, edits: dict[str, Any], message: str, hint: str) -> None:
    error = unplain(tmp_path, **edits)
    assert message in error.message
    assert hint in error.hint


def test_what_no_user_may_do(tmp_path: Path) -> None:
    outside = max(os.getgroups(), default=0) + 1 + os.getegid()
    plain = plain_of(tmp_path, additionalGIDs=[0, os.getegid(), outside], intelRdt={"closID": "x"})
    groups, shares = plain.warnings
    assert f"wants you in group {outside}, and you are not" in groups
    assert f"[{tmp_path}/x.json]" in groups
    assert "shares of cache" in shares
    assert plain_of(tmp_path, additionalGIDs=[os.getegid()]).warnings == ()
    file = written(
        tmp_path / "x.json",
        described("1.1.0", devices=device(netDevices=[{"hostInterfaceName": "ib0", "name": "n"}])),
    )
    with pytest.raises(CdiError, match="wants network interface ib0 moved"):
        render.plain(resolve.resolve([file], ()))


def hook(*words: str, path: str = "/usr/bin/nvidia-cdi-hook") -> dict[str, Any]:
    """Return a hook as nvidia-ctk writes them."""
    return {
        "hookName": "createContainer",
        "path": path,
        "args": [Path(path).name, *words],
        "env": ["NVIDIA_CTK_DEBUG=false"],
    }


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """Return a directory with libraries of a driver, and the links that ldconfig made on the host."""
    where = tmp_path / "driver"
    where.mkdir()
    for name in (
        "libcuda.so.575.57",
        "libGLX_nvidia.so.575.57",
        "libnvidia-allocator.so.575.57",
        "nvidia-smi",
    ):
        (where / name).touch()
    for link, target in (
        ("libcuda.so.1", "libcuda.so.575.57"),
        ("libGLX_nvidia.so.0", "libGLX_nvidia.so.575.57"),
        ("libGLX_indirect.so.0", "libGLX_nvidia.so.575.57"),
        ("libcuda.so.0", "gone"),
    ):
        (where / link).symlink_to(target)
    return where


def mounts_of(driver: Path) -> list[dict[str, Any]]:
    """Return the driver's files as mounts."""
    return [
        {
            "hostPath": str(path),
            "containerPath": f"/usr/lib64/{path.name}",
            "options": ["ro", "nosuid", "nodev", "bind"],
        }
        for path in sorted(driver.iterdir())
        if not path.is_symlink()
    ]


def shown(plain: render.Plain) -> dict[str, str]:
    """Return what is bound: the target's name to the source's."""
    assert all(bind.read_only for bind in plain.binds)
    return {bind.target: Path(bind.source).name for bind in plain.binds}


MOUNTED = {
    "/usr/lib64/libGLX_nvidia.so.575.57": "libGLX_nvidia.so.575.57",
    "/usr/lib64/libcuda.so.575.57": "libcuda.so.575.57",
    "/usr/lib64/libnvidia-allocator.so.575.57": "libnvidia-allocator.so.575.57",
    "/usr/lib64/nvidia-smi": "nvidia-smi",
}
SONAMES = {
    "/usr/lib64/libGLX_nvidia.so.0": "libGLX_nvidia.so.575.57",
    "/usr/lib64/libcuda.so.1": "libcuda.so.575.57",
}


@pytest.mark.parametrize(
    "made",
    [
        hook("update-ldcache", "--folder", "/usr/lib64"),
        hook("update-ldcache", "--ldconfig-path", "/sbin/ldconfig", "--folder=/usr/lib64/"),
        hook("hook", "update-ldcache", "--folder", "/usr/lib64", path="/usr/local/bin/nvidia-ctk"),
        hook("update-ldcache"),
        hook(path="/sbin/ldconfig"),
        hook("-X", "/usr/lib64", path="/usr/sbin/ldconfig.real"),
    ],
    ids=lambda made: " ".join(made["args"]),
)
def test_hooks_that_run_ldconfig(tmp_path: Path, driver: Path, made: dict[str, Any]) -> None:
    plain = plain_of(tmp_path, mounts=mounts_of(driver), hooks=[made, made])
    assert [folder.name for folder in plain.ld_cache] == ["/usr/lib64"]
    assert shown(plain) == {**MOUNTED, **SONAMES}
    assert render.words(plain)[-1] == "--ld-cache=/usr/lib64"


def test_names_of_libraries_without_the_cache(tmp_path: Path, driver: Path) -> None:
    made = hook("create-soname-symlinks", "--folder", "/usr/lib64")
    plain = plain_of(tmp_path, mounts=mounts_of(driver), hooks=[made])
    assert plain.ld_cache == ()
    assert shown(plain) == {**MOUNTED, **SONAMES}
    assert shown(plain_of(tmp_path, mounts=mounts_of(driver))) == MOUNTED


def test_links(tmp_path: Path, driver: Path) -> None:
    made = hook(
        "create-symlinks",
        *("--link", "../libnvidia-allocator.so.1::/usr/lib64/gbm/nvidia-drm_gbm.so"),
        *("--link", "libnvidia-allocator.so.575.57::/usr/lib64/libnvidia-allocator.so.1"),
        *("--link", "libcuda.so.1::/usr/lib64/libcuda.so"),
        "--link=/usr/lib64/nvidia-smi::/usr/bin/nvidia-smi",
        "--link=libcuda.so.575.57::/usr/lib64/nvidia-smi",
        "--link=/dev/null::/opt/null",
        "--link=nowhere::/dev/null",
    )
    cache = hook("update-ldcache", "--folder", "/usr/lib64")
    plain = plain_of(tmp_path, mounts=mounts_of(driver), hooks=[made, cache])
    (null,) = (bind for bind in plain.binds if bind.target == "/opt/null")
    assert (null.source, null.read_only) == ("/dev/null", False)
    others = render.Plain(tuple(bind for bind in plain.binds if bind is not null))
    assert shown(others) == {
        **MOUNTED,
        **SONAMES,
        "/usr/lib64/gbm/nvidia-drm_gbm.so": "libnvidia-allocator.so.575.57",
        "/usr/lib64/libnvidia-allocator.so.1": "libnvidia-allocator.so.575.57",
        "/usr/lib64/libcuda.so": "libcuda.so.575.57",
        "/usr/bin/nvidia-smi": "nvidia-smi",
    }
    assert plain.warnings == ()


def test_a_link_that_is_there_already(tmp_path: Path, driver: Path) -> None:
    mounts = [{"hostPath": str(driver), "containerPath": "/opt/driver", "options": ["ro"]}]
    made = hook("create-symlinks", "--link", "libcuda.so.575.57::/opt/driver/libcuda.so.1")
    assert shown(plain_of(tmp_path, mounts=mounts, hooks=[made])) == {"/opt/driver": "driver"}


def test_a_link_into_a_directory_that_is_mounted(tmp_path: Path, driver: Path) -> None:
    mounts = [{"hostPath": str(driver), "containerPath": "/opt/driver", "options": ["ro"]}]
    plain = plain_of(
        tmp_path, mounts=mounts, hooks=[hook("create-symlinks", "--link", "/opt/driver/nvidia-smi::/bin/s")]
    )
    assert shown(plain) == {"/bin/s": "nvidia-smi", "/opt/driver": "driver"}


def test_links_in_dev_are_the_hosts(tmp_path: Path) -> None:
    made = hook("create-symlinks", "--link", "../card7::/dev/dri/by-path/pci-0000:07:00.0-card-gone")
    plain = plain_of(tmp_path, hooks=[made], **NODE)
    assert plain.binds == ()
    (warning,) = plain.warnings
    assert "wants link /dev/dri/by-path/pci-0000:07:00.0-card-gone, which this host does not have" in warning


@pytest.mark.parametrize(
    "name", ["chmod", "disable-device-node-modification", "update-application-profile", "enable-cuda-compat"]
)
def test_hooks_that_are_left_out(tmp_path: Path, name: str) -> None:
    plain = plain_of(tmp_path, hooks=[hook(name, "--mode", "755")], **NODE)
    (omission,) = plain.omissions
    assert (omission.hook, omission.options) == (name, ("--mode", "755"))
    assert omission.why == render.Why("vendor.com/class=d", f"{tmp_path}/x.json")
    assert render.words(plain) == ()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (hook("a", "b", path="/opt/vendor/bin/setup"), "/opt/vendor/bin/setup (setup a b)"),
        (hook(), "/usr/bin/nvidia-cdi-hook (nvidia-cdi-hook)"),
        (hook("check-requirements"), "nvidia-cdi-hook check-requirements"),
        (hook("x" * 500), "x…)"),
        (hook("create-symlinks", "--csv-filename", "/x"), "--csv-filename is not known"),
        (hook("create-symlinks", "--link", "a"), "a link is TARGET::LINK, not a"),
        (hook("create-symlinks", "--link"), "a link is TARGET::LINK, not "),
        (
            hook("create-symlinks", "--link", "libx.so.1::/usr/lib/libx.so"),
            "libx.so.1, for the link /usr/lib/libx.so, is in no",
        ),
        (hook("create-symlinks", "--link", "b::/a", "--link", "a::/b"), "b, for the link /a, is in no mount"),
        (hook("-r", "/x", path="/sbin/ldconfig"), "ldconfig -r does more"),
    ],
)
def test_hooks_that_are_refused(tmp_path: Path, made: dict[str, Any], message: str) -> None:
    error = unplain(tmp_path, hooks=[made])
    assert "has a createContainer hook that ch-run can't stand in for" in error.message
    assert message in error.message
    assert "copy the file, take the hook out" in error.hint


STRANGE: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "/",
    "a=b",
    "\x1b[31m",
    "/a\n",
    [],
    {},
    [[]],
    {"": None},
    ["x"] * 3,
)


def changed(value: object, dice: random.Random) -> object:
    """Return value with something strange in the place of a part of it."""
    if dice.random() < 0.2 or not isinstance(value, (dict, list)) or not value:
        return dice.choice(STRANGE)
    if isinstance(value, list):
        index = dice.randrange(len(value))
        return [*value[:index], changed(value[index], dice), *value[index + 1 :]]
    name = dice.choice(list(value))
    return {**value, name: changed(value[name], dice)}


def line_of(path: Path, data: object) -> str:
    """Return the error of data in a file at path, empty if there is none."""
    try:
        file = written(path, data)
        render.plain(resolve.resolve([file], ()))
    except CdiError as error:
        return error.message
    return ""


def test_whatever_is_in_a_file_there_is_a_specification_or_one_clear_line(tmp_path: Path) -> None:
    bases = (EVERYTHING, described(annotations={"a": "b"}))
    lines = []
    for seed in range(600):
        data = changed(bases[seed % 4 == 0], random.Random(seed))  # noqa: S311  no secret
        lines.append(line_of(tmp_path / ("x.json" if seed % 2 else "x.yaml"), data))
    assert all(line.isprintable() and line.startswith(f"{tmp_path}/x.") for line in lines if line)
    assert 0 < lines.count("") < len(lines)


def problem_of(text: str) -> str:
    """Return what is wrong with YAML text, empty if nothing is."""
    try:
        builder.build(text)
    except builder.BuildError as error:
        return f"{error.line}: {error}"
    return ""


def test_whatever_is_said_in_yaml_is_data_or_one_clear_line() -> None:
    pieces = (
        "a",
        ": ",
        "- ",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "!x ",
        "!!int ",
        '"',
        "'",
        ">",
        "1",
        "---\n",
        "%",
        "\t",
        "#",
    )
    found = []
    for seed in range(2000):
        dice = random.Random(seed)  # noqa: S311  no secret
        found.append(problem_of("".join(dice.choices(pieces, k=dice.randrange(1, 20)))))
    assert all(line.isprintable() for line in found)
    assert 0 < found.count("") < len(found)
