"""chlaunch-errors(7) is what ch-run and the ailments say, and a code means one error for ever."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS))  # a script, no package

import errors  # noqa: E402
from errors import CatalogueError, Error  # noqa: E402

from chlaunch.doctor import ailments  # noqa: E402

PAGE = DOCS / "chlaunch-errors.7"
NONE: frozenset[str] = frozenset()

ERRORS = [
    Error("CH-0001", 31, "can't go on", "report it"),
    Error("CH-0010", 31, "can't find image", "give one; -x\\y"),
    Error("CH-0101", 0, 'a "hint"', ".begins with a dot"),
]


@pytest.fixture(scope="module")
def table(ch_run: Path) -> list[Error]:
    return errors.ask(str(ch_run))


def test_the_page_is_what_would_be_made_now(ch_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text(PAGE.read_text())
    done = subprocess.run(
        [sys.executable, DOCS / "errors.py", ch_run, page], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert page.read_text() == PAGE.read_text(), "make docs"


def test_the_table(table: list[Error]) -> None:
    assert len({error.code for error in table}) == len(table)
    used, retired = errors.known(PAGE.read_text())
    rows = ailments.load()
    assert used == {
        **{error.code: errors.escape(error.message) for error in table},
        **{row.code: errors.escape(row.title) for row in rows},
    }
    assert not {error.code for error in table} & {row.code for row in rows}, "one code space"
    assert all(error.number < ailments.FIRST_CODE for error in table)
    assert not set(used) & set(retired)
    for error in table:
        assert error.exit_code in (0, 31, 49, 64, 84, 87)
        assert error.message
        assert error.remedy
    codes = {error.number for error in table}
    for surprise in errors.SURPRISES:
        assert codes.issuperset(surprise.codes)


def test_the_page_says_it_all() -> None:
    page = errors.render(ERRORS, {})
    assert errors.known(page) == (
        {"CH-0001": "can't go on", "CH-0010": "can't find image", "CH-0101": r"a \(dqhint\(dq"},
        {},
    )
    assert "give one; \\-x\\ey\n.br\nExit code 31.\n" in page
    assert "\n\\&.begins with a dot\n.br\nThe command is started all the same.\n" in page
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True, check=False
    )
    assert lint.stdout == ""


def test_a_code_is_given_once() -> None:
    with pytest.raises(CatalogueError, match="given twice: CH-0010"):
        errors.check([*ERRORS, replace(ERRORS[0], code="CH-0010")], "", NONE)


def test_other_words_must_be_owned_up_to() -> None:
    page = errors.render(ERRORS, {})
    changed = [*ERRORS[1:], replace(ERRORS[0], message="can't stop")]
    with pytest.raises(CatalogueError, match=r"CH-0001 said: can't go on; now: can't stop"):
        errors.check(changed, page, NONE)
    assert errors.check(changed, page, frozenset({"CH-0001"})) == {}


def test_a_code_that_is_gone_is_remembered() -> None:
    retired = errors.check(ERRORS[1:], errors.render(ERRORS, {}), NONE)
    assert retired == {"CH-0001": "can't go on"}
    page = errors.render(ERRORS[1:], retired)
    assert errors.check(ERRORS[1:], page, NONE) == retired
    with pytest.raises(CatalogueError, match="CH-0001 is retired, it said: can't go on"):
        errors.check(ERRORS, page, frozenset({"CH-0001"}))


def test_a_page_that_contradicts_is_left_alone(ch_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    text = PAGE.read_text().replace("can't find image", "something else")
    page.write_text(text)
    assert errors.main([str(ch_run), str(page)]) == 1
    assert page.read_text() == text
    assert errors.main([str(ch_run), str(page), "--reworded=CH-0010", "--reworded=CH-0011"]) == 0
    assert page.read_text() == PAGE.read_text()
