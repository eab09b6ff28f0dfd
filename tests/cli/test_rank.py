"""batchensemble rank: from two comparisons to a table, a sentence and a diagram."""

import json
from xml.etree import ElementTree

import pytest

from command_line import QUICK, run, write_csv
from written_comparisons import write_comparison, write_comparisons

ALWAYS = {"single": [0.5] * 6, "deep": [0.1] * 6}


def words(text):
    return " ".join(text.split())


def test_comparisons_are_ranked_as_compare_left_them(tmp_path, monkeypatch):
    monkeypatch.setattr("batchensemble.report.page.draw_all", lambda comparison: {})
    few = ["--methods", "single,batch,mimo", "--quiet"]
    assert run("compare", *QUICK, *few, "--out", tmp_path / "tumours").exit_code == 0
    table = write_csv(tmp_path / "plants.csv")
    plants = ["--data", table, "--target", "kind", "--epochs", 1, "--hidden", "8"]
    assert run("compare", *plants, *few, "--out", tmp_path / "plants").exit_code == 0
    folders = [tmp_path / "tumours", tmp_path / "plants"]
    done = run("rank", *folders, "--by", "brier", "--plot", tmp_path / "drawn" / "ranks.svg")
    assert done.exit_code == 0, done.output
    for folder, name in zip(folders, ("breast_cancer", "plants.csv"), strict=True):
        results = json.loads((folder / "results.json").read_text())
        scores = sorted(each["scores"]["brier"] for each in results["runs"])
        row = next(line for line in done.output.splitlines() if line.strip().startswith(name))
        for place, value in enumerate(scores, start=1):
            assert f"{value:.4f} ({place})" in row
    assert "Give at least 3 data sets." in words(done.output)
    # A table has other defaults than a named data set.
    assert words(done.output).count("Note: ") == 1
    assert "Note: Settings differ: members (3 on breast_cancer" in words(done.output)
    drawn = ElementTree.parse(tmp_path / "drawn" / "ranks.svg").getroot()
    assert drawn.find("{*}title").text.startswith("Mean ranks over 2 data sets, 1 is the best: ")


def test_the_table_has_means_deviations_ranks_and_what_is_found(tmp_path):
    done = run("rank", *write_comparisons(tmp_path, ALWAYS))
    assert done.exit_code == 0
    heading = "NLL, nats, mean ± standard deviation over the seeds, and rank; lower is better"
    assert heading in words(done.output)
    assert "Single network" in done.output
    assert "0.1050 (1)" in done.output
    assert "± 0.0071" in done.output
    row = next(line for line in done.output.splitlines() if "mean rank" in line)
    assert row.split()[2:] == ["2.00", "1.00"]
    assert "Friedman's test: p = 0.031; critical difference of mean ranks 0.80 (95%)" in done.output
    assert (
        "By NLL the deep ensemble is significantly better than the single network." in done.output
    )


def test_json_has_the_ranks_and_the_sentence(tmp_path):
    found = json.loads(run("rank", *write_comparisons(tmp_path, ALWAYS), "--json").stdout)
    assert found["mean_ranks"] == {"deep": 1.0, "single": 2.0}
    assert found["significantly_different"] == [["deep", "single"]]
    assert found["sentence"] == (
        "By NLL the deep ensemble is significantly better than the single network."
    )


def test_names_are_printed_as_they_are_and_steer_no_terminal(tmp_path):
    for place, name in (("a", "[red]x[/red]\x1b[31m\n.csv"), ("b", "[/]")):
        own = {"single": [0.2], "[bold]mine[/bold]\x07": [0.1], "deep": [None]}
        write_comparison(tmp_path / place, own, name=name, members=place)
    write_comparison(tmp_path / "c", {"[link=x]other": [0.2], "single": [0.3], **own})
    done = run("rank", *sorted(tmp_path.iterdir()), "--plot", tmp_path / "ranks.png")
    assert done.exit_code == 0, done.output
    assert "[red]x[/red] [31m .csv" in done.output
    assert "[/]" in done.output
    assert "[bold]mine[/bold]" in done.output
    assert "Note: [link=x]other is left out: [red]x[/red] [31m .csv, [/] has no" in done.output
    assert "\x1b" not in done.output
    assert "\x07" not in done.output
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["DIR/set0"], "ranks need at least two data sets, got 1"),
        (["DIR/set0", "DIR/set0"], "set0 is in"),
        (["DIR/set0", "DIR/nowhere"], "there is no folder"),
        (["DIR/set0", "DIR"], "has no results.json; give a folder that batchensemble compare wr"),
        (["DIR/set0", "DIR/set1", "--by", "acc"], "by must be one of"),
        (
            ["DIR/set0", "DIR/set1", "--by", "rmse"],
            "set0 has no score 'rmse'; rank by what",
        ),
        (["DIR/set0", "DIR/set1", "--plot", "DIR/x.gif"], "must end in .svg or .png, got 'x.gif'"),
        (
            ["DIR/set0", "DIR/set1", "--plot", "DIR/set0/results.json/x.png"],
            "x.png: File exists; give another",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_a_sentence(arguments, sentence, tmp_path):
    write_comparisons(tmp_path, ALWAYS)
    done = run("rank", *(str(each).replace("DIR", str(tmp_path)) for each in arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert sentence in words(done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_help_says_how_to_make_the_folders():
    done = run("rank", "--help")
    assert done.exit_code == 0
    assert "batchensemble compare --data $data --seeds 5 --out runs/$data" in words(done.output)
