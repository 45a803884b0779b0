"""The one table of options, and who wins where several speak."""

from __future__ import annotations

from pathlib import Path

import pytest

from chlaunch.errors import ConfigError, UsageError
from chlaunch.launch import options
from chlaunch.launch.options import OPTIONS, Setting
from chlaunch.launch.tables import Document


def test_names_are_unique() -> None:
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)


def test_native_options_are_ch_runs() -> None:
    text = (Path(__file__).resolve().parents[2] / "chlaunch/runtime/option_rows.c").read_text()
    for option in OPTIONS:
        if option.native:
            assert f'{{"{option.name}",' in text, option.name


def test_environment() -> None:
    found = options.from_environment(
        {
            "CHLAUNCH_BIND": "/a\n\n/b\n",
            "CHLAUNCH_WRITE": "yes",
            "CHLAUNCH_JOIN": "No",
            "CHLAUNCH_MPI": "",
            "BIND": "x",
        }
    )
    origin = "environment (CHLAUNCH_BIND)"
    assert found["bind"] == tuple(Setting(path, options.ENVIRONMENT, origin) for path in ("/a", "/b"))
    assert [setting.value for name in ("write", "join") for setting in found[name]] == [True, False]
    assert set(found) == {"bind", "write", "join"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CHLAUNCH_WRITE", "maybe", "must be yes or no"),
        ("CHLAUNCH_UID", "root", "must be a number"),
        ("CHLAUNCH_LAUNCHER", "mpiexec", "must be one of auto, srun, mpirun, guest"),
        ("CHLAUNCH_ENV_DEFAULT", "A", "must be NAME=VALUE"),
        ("CHLAUNCH_ENV", "=A", "must be NAME=VALUE"),
        ("CHLAUNCH_WRITE_FAKE", "1t", "must be a size such as 500m or 20%, not 1t"),
        ("CHLAUNCH_WRITE_FAKE_SCOPE", "job", "must be one of node, rank"),
    ],
)
def test_bad_values_in_the_environment(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options.from_environment({name: value})


@pytest.mark.parametrize("text", ["A=", "A=b=c", "A=two\nlines"])
def test_pairs(text: str) -> None:
    (setting,) = options.from_command_line({"env": (text,)})["env"]
    assert setting.value == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", "12%"), ("On", "12%"), ("no", False), ("off", False), ("1", "1"), ("20%", "20%")],
)
def test_a_value_that_may_be_left_out(text: str, value: str | bool) -> None:  # noqa: FBT001  what it is
    document = Document("f.toml", {"options": {"write-fake": text}}, {})
    settings = options.merge(options.from_document(document, options.SITE))
    assert settings.last("write-fake") == Setting(value, options.SITE, "f.toml:1")
    assert settings.text("write-fake") == (value or "")


def test_what_an_option_without_a_value_means_is_what_ch_run_takes_it_for() -> None:
    text = (Path(__file__).resolve().parents[2] / "chlaunch/runtime/options.c").read_text()
    assert f'WRITE_FAKE_SIZE[] = "{options.BY_NAME["write-fake"].alone}";' in text


def test_bad_values_in_a_file() -> None:
    document = Document("f.toml", {"options": {"uid": "x"}}, {("options", 0, "uid"): 7})
    with pytest.raises(ConfigError, match=r"^f\.toml:7: uid must be a number"):
        options.from_document(document, options.SITE)


def test_the_stronger_wins_and_lists_add_up() -> None:
    ours = {"mpi": (Setting("auto", options.OURS, "ours"),), "bind": (Setting("/o", options.OURS, "ours"),)}
    twins = options.from_environment({"CHLAUNCH_MPI": "pmi2", "CHLAUNCH_BIND": "/e"})
    line = options.from_command_line({"mpi": "pmix", "bind": ("/1", "/2"), "write": None, "join": False})
    merged = options.merge(ours, twins, line)
    assert merged.text("mpi") == "pmix"
    assert [setting.value for setting in merged.all("bind")] == ["/o", "/e", "/1", "/2"]
    assert merged.last("write") is None
    assert not merged.is_on("join")
    assert merged.last("join") == Setting(value=False, strength=4, origin="command line (--ch-join)")
