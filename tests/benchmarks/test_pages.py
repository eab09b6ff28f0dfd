"""The base of all pages: what is kept, tables, and marks."""

import subprocess
import sys

import pytest

from benchmarks import pages

LINES = [["what", "how", "cost"], ["a layer", "`init=['ones']`", "1.25"]]


@pytest.mark.parametrize("damage", ["start is missing", "end is missing", "twice", "swapped"])
def test_a_page_without_its_marks_is_left_alone_and_an_error(damage, tmp_path):
    start, end = pages.marks("speed")
    text = {
        "start is missing": end,
        "end is missing": start,
        "twice": f"{start}\n{end}\n{start}\n{end}",
        "swapped": f"{end}\n{start}",
    }[damage]
    with pytest.raises(ValueError, match="the page must hold the lines '<!-- speed, written"):
        pages.between(text, "speed", "a table")
    page = tmp_path / "page.md"
    page.write_text("\n".join([*pages.marks("size"), text]), encoding="utf-8")
    before = page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="the page must hold"):
        pages.write_texts(page, {"size": "a table", "speed": "a table"})
    assert page.read_text(encoding="utf-8") == before


def test_a_table_has_its_text_on_the_left_and_its_note_below():
    assert pages.as_markdown(LINES, text_columns=2, note="yesterday").splitlines() == [
        "| what | how | cost |",
        "| --- | --- | ---: |",
        "| a layer | `init=['ones']` | 1.25 |",
        "",
        "*yesterday*",
    ]
    table = pages.as_rich("costs", LINES, text_columns=2)
    assert [column.justify for column in table.columns] == ["left", "left", "right"]


def test_brackets_are_no_markup_in_the_terminal(capsys):
    from rich.console import Console

    Console(width=80).print(pages.as_rich("costs", [["what"], ["[bold] is a word here"]]))
    assert "[bold] is a word here" in capsys.readouterr().out


def test_what_is_kept_is_read_again(tmp_path):
    file = tmp_path / "runs" / "part.json"
    assert pages.kept(file) is None
    pages.keep(file, {"numbers": [1, 2.5]})
    assert pages.kept(file) == {"numbers": [1, 2.5]}


def test_a_bare_python_can_import_the_base():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import benchmarks.pages; "
        "print(*{name.partition('.')[0] for name in sys.modules} & {'torch', 'rich', 'numpy'})"
    )
    command = [sys.executable, "-S", "-c", code, str(pages.ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
