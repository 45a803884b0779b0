"""The fuzzers of tests/fuzz over their corpus and a few thousand changed inputs, always the same ones; see make fuzz."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
CORPUS = FUZZ / "corpus"
MUTATIONS = {"environment": 6000, "rendezvous": 5000}  # those that write files; others are ten times as fast


@pytest.mark.parametrize("name", sorted(directory.name for directory in CORPUS.iterdir()))
def test_corpus(sanitized: Path, tmp_path: Path, name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert all(file.stat().st_size < 4096 for file in files)
    mutations = MUTATIONS.get(name, 20000)
    result = subprocess.run(
        [sanitized / "tests/fuzz" / f"fuzz-{name}", str(mutations), *files],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{len(files)} files, {mutations} changed ones\n"


def test_every_harness_has_a_corpus() -> None:
    lines = (FUZZ / "CMakeLists.txt").read_text().splitlines()
    harnesses = {
        line.removeprefix("harness(").split()[0].rstrip(")") for line in lines if line.startswith("harness(")
    }
    assert harnesses == {directory.name for directory in CORPUS.iterdir()}


def test_findings_end_the_process(sanitized: Path, tmp_path: Path) -> None:
    """A CHECK that does not hold is not overlooked: here that the driver has something to do."""
    program = tmp_path / "bad.c"
    program.write_text(
        '#include "fuzz.h"\nint LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)\n'
        "{ CHECK(size < 2 || data[0] != 'a' || data[1] != 'b'); return 0; }\n"
    )
    seed = tmp_path / "seed"
    seed.write_text("ac")
    sanitize = ["-fsanitize=address,undefined", "-D_GNU_SOURCE", f"-I{FUZZ}"]
    wraps = [
        f"-Wl,--wrap={word}" for word in ["malloc", "calloc", "reallocarray", "strdup", "strndup", "free"]
    ]
    archive = next(sanitized.glob("tests/fuzz/libfuzzing.a"))
    subprocess.run(["gcc", *sanitize, *wraps, "-o", tmp_path / "bad", program, archive], check=True)
    result = subprocess.run(
        [tmp_path / "bad", "20000", seed], capture_output=True, check=False, text=True, timeout=60
    )
    assert result.returncode < 0
    assert "does not hold" in result.stderr
    assert "input: 61 62" in result.stderr
