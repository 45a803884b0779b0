"""ch-launch's devices: asked for in any of its ways, read once, on the submitting side."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chlaunch.errors import CdiError, UsageError
from chlaunch.launch import devices, options
from chlaunch.launch.container import Bind, VariableChange
from chlaunch.launch.devices import Devices
from chlaunch.rootfs import Rootfs

CHECKOUT = Path(__file__).resolve().parents[2]
MAIN = "import sys; from chlaunch.cli.launch import main; main()"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with a CDI file: vendor.com/class with devices 0 and 1, a library, the loader's cache."""
    made = tmp_path / "cdi"
    made.mkdir()
    (made / "libx.so.1.2").touch()
    (made / "libx.so.1").symlink_to("libx.so.1.2")
    items = [
        {"name": name, "containerEdits": {"env": [f"D{name}=$x"], "deviceNodes": [{"path": "/dev/null"}]}}
        for name in ("0", "1")
    ]
    hooks = [
        {"hookName": "createContainer", "path": "/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", *words]}
        for words in (
            ["update-ldcache", "--folder", "/opt/x"],
            ["enable-cuda-compat", "--host-driver-version=535.1"],
        )
    ]
    mounts = [{"hostPath": f"{made}/libx.so.1.2", "containerPath": "/opt/x/libx.so.1.2", "options": ["ro"]}]
    whole = {"cdiVersion": "0.5.0", "kind": "vendor.com/class", "devices": items}
    (made / "x.json").write_text(json.dumps({**whole, "containerEdits": {"hooks": hooks, "mounts": mounts}}))
    return made


def gathered(image: Path, environment: dict[str, str] | None = None, **given: Any) -> Devices:
    """Return the devices for options given as click has them."""
    said = options.from_command_line({name.replace("_", "-"): value for name, value in given.items()})
    return devices.gather(options.merge(said), environment or {}, Rootfs(str(image)))


def test_nothing_is_read_where_nothing_is_asked_for(image: Path) -> None:
    assert gathered(image, cdi_dirs="/nowhere") == Devices()


def test_a_device(image: Path, directory: Path) -> None:
    found = gathered(image, device=("vendor.com/class=0",), cdi_dirs=str(directory))
    source = f"{directory}/libx.so.1.2"
    assert [bind for bind, _ in found.binds] == [
        Bind(source, "/opt/x/libx.so.1.2", read_only=True),
        Bind(source, "/opt/x/libx.so.1", read_only=True),
    ]
    assert [change for change, _ in found.variables] == [VariableChange("set", "D0", "$x", literal=True)]
    assert found.ld_cache == ("/opt/x",)
    assert found.notes == ()
    rows = [*(row for _, row in (*found.binds, *found.variables)), *found.rows[1:]]
    assert {row.origin for row in rows} == {f"{directory}/x.json"}
    assert [row.value for row in rows[-3:]] == [
        "/dev/null visible",
        "ld.so's cache covers /opt/x",
        "hook enable-cuda-compat left out",
    ]
    assert found.rows[0].origin == "command line (--ch-device)"


@pytest.mark.parametrize("word", ["vendor.com/class", "all", "FILE"])
def test_kinds_files_and_everything(image: Path, directory: Path, word: str) -> None:
    asked = word.replace("FILE", f"{directory}/x.json")
    found = gathered(image, {"CH_RUN_CDI_DIRS": str(directory)}, cdi=(asked,))
    assert [change.name for change, _ in found.variables] == ["D0", "D1"]


def test_what_is_not_there(image: Path, directory: Path) -> None:
    with pytest.raises(CdiError, match=r"can't find CDI device vendor\.com/class=2"):
        gathered(image, device=("vendor.com/class=2",), cdi_dirs=str(directory))
    with pytest.raises(UsageError, match="not a CDI device: 'gpu'"):
        gathered(image, device=("gpu",))


def test_an_image_whose_cuda_is_newer_than_the_driver_is_noted(image: Path, directory: Path) -> None:
    compat = image / "usr/local/cuda/compat"
    compat.mkdir(parents=True)
    for library, noted in (("libcuda.so.1", False), ("libcuda.so.535.9", False), ("libcuda.so.570.2", True)):
        (compat / library).touch()
        notes = gathered(image, device=("vendor.com/class=0",), cdi_dirs=str(directory)).notes
        assert [("driver 570" in note, "--ch-set-env=LD_LIBRARY_PATH=" in note) for note in notes] == [
            (True, True)
        ] * noted


def launch(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ch-launch in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, "--ch-dry-run", *words],
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        check=False,
        text=True,
    )


def test_ranks_see_plain_options(image: Path, environment: dict[str, str], directory: Path) -> None:
    (directory / "bad.yaml").write_text("{")
    words = [
        "--ch-explain",
        "--ch-device=vendor.com/class=1",
        f"--ch-cdi-dirs={directory}",
        str(image),
        "--",
        "x",
    ]
    done = launch(words, environment)
    assert done.returncode == 0, done.stderr
    line = shlex.split(done.stdout)
    assert "--ld-cache=/opt/x" in line
    assert "--env=D1=$x" in line
    assert f"--bind-ro={directory}/libx.so.1.2:/opt/x/libx.so.1" in line
    assert not [word for word in line if "cdi=" in word or word.startswith(("--cdi", "--device"))]
    said = done.stderr.splitlines()
    assert f"ch-launch: bind /opt/x/libx.so.1: for vendor.com/class [{directory}/x.json]" in said
    assert "ch-launch: device vendor.com/class=1: asked for [command line (--ch-device)]" in said
    assert f"ch-launch: warning: CDI file left out: {directory}/bad.yaml:2: not YAML" in done.stderr


def test_a_site_can_ask_for_devices(image: Path, environment: dict[str, str], directory: Path) -> None:
    site = directory / "site.toml"
    site.write_text(f"[options]\ncdi = ['vendor.com/class']\ncdi-dirs = '{directory}'\n")
    done = launch([f"--ch-site={site}", str(image), "--", "x"], environment)
    assert "--env=D0=$x" in shlex.split(done.stdout)


def test_a_device_that_is_not_there_is_one_clear_line(
    image: Path, environment: dict[str, str], directory: Path
) -> None:
    variables = {"CHLAUNCH_DEVICE": "vendor.com/class=7", "CH_RUN_CDI_DIRS": str(directory)}
    done = launch([str(image), "--", "x"], {**environment, **variables})
    assert done.returncode == 31
    assert done.stderr.splitlines() == [
        f"ch-launch: error: can't find CDI device vendor.com/class=7 in {directory}",
        "ch-launch: hint: there is vendor.com/class=0, vendor.com/class=1",
    ]
