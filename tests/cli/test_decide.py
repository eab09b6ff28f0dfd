"""``decide``: from a file to a threshold, and the columns that ``predict`` adds by it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.cli.workflows import predict as predict_file
from batchensemble.cli.workflows import scored_rows

KINDS = ("plain", "a | b", '=1+1,"q\\')
QUICK = [
    "--architecture",
    "perceptron",
    "--hidden",
    16,
    "--members",
    2,
    "--lr",
    0.02,
    "--epochs",
    25,
]
QUICK += ["--checkpoint-every", 1000]  # waiting for the disk takes longer than the training


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def passed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def sentence(done) -> str:
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.stderr.split())


def rows(seed: int, many: int) -> pd.DataFrame:
    """Rows of two columns, a kind that the first tells less and less surely, and a price."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, many))
    kind = np.where(x + 0.5 * rng.normal(size=many) > 0, 0, 1)
    kind = np.where(y > 1.5, 2, kind)
    price = 100 + 10 * x + np.exp(y) * rng.normal(size=many)
    frame = pd.DataFrame({"x": x, "y": y, "kind": np.array(KINDS)[kind], "price": price})
    return frame.round(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Tables, and a model of classes and one of numbers that held ``held.csv`` out."""
    folder = tmp_path_factory.mktemp("decide")
    for seed, (name, many) in enumerate({"train": 600, "held": 800, "new": 8000}.items()):
        rows(seed, many).to_csv(folder / f"{name}.csv", index=False)
    for name in ("train", "held"):  # all columns but the target are features
        frame = pd.read_csv(folder / f"{name}.csv")
        frame.drop(columns="price").to_csv(folder / f"{name}-kind.csv", index=False)
        frame.drop(columns="kind").to_csv(folder / f"{name}-price.csv", index=False)
    train(folder, "classes", "kind")
    train(folder, "numbers", "price", "--task", "regression")
    return folder


def train(folder: Path, name: str, target: str, *more: object) -> Path:
    data = ["--data", folder / f"train-{target}.csv", "--target", target]
    held_out = ["--validation", folder / f"held-{target}.csv"]
    passed("train", *data, *held_out, *QUICK, *more, "--out", folder / name)
    return folder / name


@pytest.fixture
def classes(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder / "classes", tmp_path / "classes"))


@pytest.fixture
def numbers(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder / "numbers", tmp_path / "numbers"))


def held(folder: Path, target: str = "kind") -> list[object]:
    """Options for rows enough to find a threshold that the training did not see."""
    return ["--data", folder / f"held-{target}.csv"]


def decided(model: Path) -> dict:
    return json.loads((model / "decision.json").read_text())


def predicted(model: Path, data: Path, out: Path) -> pd.DataFrame:
    passed("predict", model, "--data", data, "--out", out)
    return pd.read_csv(out) if out.suffix == ".csv" else pd.read_parquet(out)


def names_in(text: str) -> list[str]:
    """The classes of a set in CSV, as the manual says that it is read."""
    parts = re.split(r"(?<=[^\\]) \| |(?<=\\\\) \| ", text)
    return [re.sub(r"\\(.)", r"\1", part) for part in parts]


def test_what_is_answered_is_what_was_counted(folder, classes, tmp_path):
    said = passed("decide", classes, *held(folder))
    assert "800 rows of held-kind.csv" in said
    found = decided(classes)["threshold"]
    frame = predicted(classes, folder / "held.csv", tmp_path / "out.csv")
    truth = pd.read_csv(folder / "held.csv")["kind"]
    assert frame["answer"].dtype == bool
    assert frame["answer"].mean() == found["coverage"]
    assert 0.3 < found["coverage"] < 1
    wrong = (frame["label"] != truth)[frame["answer"]]
    assert wrong.mean() == pytest.approx(found["risk"])
    assert f"{frame['answer'].sum()} of 800 examples ({found['coverage']:.1%}), of which" in said
    assert f"{wrong.sum()} are wrong" in said
    assert (frame["total"][frame["answer"]] < found["below"]).all()


def test_the_threshold_and_the_sets_are_those_of_the_library(folder, classes):
    one = ("--risk", 0.1, "--by", "confidence", "--coverage", 0.8, "--over-all")
    passed("decide", classes, *held(folder), *one)
    frame = pd.read_csv(folder / "held.csv")
    config = json.loads((classes / "config.json").read_text())["data"]
    y = frame["kind"].map(config["class_names"].index).to_numpy()
    prediction = be.predict(be.load(classes), frame[["x", "y"]])
    threshold = be.threshold_for(prediction, y, 0.1, by="confidence")
    found = decided(classes)
    for name in ("coverage", "risk", "bound", "target", "confidence"):
        assert found["threshold"][name] == pytest.approx(getattr(threshold, name))
    assert found["threshold"]["below"] == pytest.approx(threshold.value, rel=1e-5)
    sets = be.ConformalSets("lac", 0.8, allow_empty=False).fit(prediction, y)
    assert found["sets"]["highest_score"] == pytest.approx(sets.thresholds_[0], rel=1e-5)
    assert found["sets"]["mean_size"] == pytest.approx(sets(prediction).mean_size)


def test_a_rare_class_is_covered_as_the_others_are(folder, classes, tmp_path):
    """A fifteenth of the rows is of the last class, which the model cannot tell from the first."""
    new = pd.read_csv(folder / "new.csv")
    shares = {}
    for way in ("--over-all", None):
        said = passed("decide", classes, *held(folder), *([way] if way else []))
        frame = predicted(classes, folder / "new.csv", tmp_path / f"out{way}.csv")
        sets = frame["set"].map(names_in)
        inside = np.array([kind in each for kind, each in zip(new["kind"], sets, strict=True)])
        shares[way] = [inside[new["kind"] == kind].mean() for kind in KINDS]
        assert ("The sets are by class, since class" in said) == (way is None)
    assert min(shares[None]) > 0.9 - 0.07  # three deviations of 50 rows of the rarest
    found = decided(classes)["sets"]
    assert len(found["highest_scores"]) == 3
    assert found["highest_score"] == max(found["highest_scores"])
    prediction, y = held_out(folder, classes)
    expected = [
        np.sort(1 - prediction.probs[y == k, k])[int(np.ceil(0.9 * (sum(y == k) + 1))) - 1]
        for k in range(3)
    ]
    assert found["highest_scores"] == pytest.approx(expected, rel=1e-5)


def test_few_rows_of_a_class_are_told(folder, classes, tmp_path):
    frame = pd.read_csv(folder / "held-kind.csv")
    rare = frame["kind"] == frame["kind"].value_counts().index[-1]
    pd.concat([frame[~rare], frame[rare].head(12)]).to_csv(tmp_path / "few.csv", index=False)
    data = ["--data", tmp_path / "few.csv", "--target", "kind"]
    said = passed("decide", classes, *data)
    assert "has 12 of these rows, too few for sets by class, which need 20 of each." in said
    assert "highest_scores" not in decided(classes)["sets"]
    assert "of the new examples of each class" in passed("decide", classes, *data, "--by-class")
    assert len(decided(classes)["sets"]["highest_scores"]) == 3


def test_sets_by_class_are_for_classes(numbers):
    assert "this model predicts numbers" in sentence(run("decide", numbers, "--by-class"))


def held_out(folder: Path, classes: Path):
    """Return the library's prediction on the held-out rows, and their classes."""
    frame = pd.read_csv(folder / "held.csv")
    config = json.loads((classes / "config.json").read_text())["data"]
    y = frame["kind"].map(config["class_names"].index).to_numpy()
    return be.predict(be.load(classes), frame[["x", "y"]]), y


def test_new_rows_are_answered_and_covered_as_promised(folder, classes, tmp_path):
    passed("decide", classes, *held(folder), "--risk", 0.05, "--coverage", 0.9)
    frame = predicted(classes, folder / "new.csv", tmp_path / "out.csv")
    truth = pd.read_csv(folder / "new.csv")["kind"]
    wrong = frame["label"] != truth
    assert wrong.mean() > 0.08
    assert 0 < wrong[frame["answer"]].mean() <= 0.05
    holds = [kind in names_in(text) for kind, text in zip(truth, frame["set"], strict=True)]
    assert np.mean(holds) == pytest.approx(0.9, abs=0.03)


def test_sets_in_parquet_are_lists_and_the_same(folder, classes, tmp_path):
    pytest.importorskip("pyarrow")
    passed("decide", classes)
    text = predicted(classes, folder / "held.csv", tmp_path / "out.csv")["set"]
    lists = predicted(classes, folder / "held.csv", tmp_path / "out.parquet")
    assert [list(each) for each in lists["set"]] == [names_in(each) for each in text]
    assert {1, 2} <= {len(each) for each in lists["set"]}
    assert set(lists["set"].explode()) == set(KINDS)
    assert lists["answer"].dtype == bool


def test_without_a_decision_nothing_is_added(folder, classes, tmp_path):
    out = tmp_path / "out.csv"
    command = ["predict", classes, "--data", folder / "held.csv", "--out", out]
    said, content = passed(*command), out.read_bytes()
    assert said == f"800 rows: {out}"
    passed("decide", classes, *held(folder))
    more = passed(*command)
    assert f"answer, set: by {classes / 'decision.json'}" in more
    assert "at most 5% of the answered rows are wrong, with 95% confidence" in more
    before, after = (each.decode().splitlines() for each in (content, out.read_bytes()))
    assert all(new.startswith(f"{old},") for old, new in zip(before, after, strict=True))
    assert run(*command, "--quiet").output == ""
    (classes / "decision.json").unlink()
    assert passed(*command) == said
    assert out.read_bytes() == content


def test_parts_by_another_decision_are_not_gone_on_with(folder, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(scored_rows, "MOST_BLOCK_ROWS", 100)
    right, calls = predict_file._predictions, []

    def ends_at_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return right(*arguments)

    monkeypatch.setattr(predict_file, "_predictions", ends_at_the_third)
    out, command = (
        tmp_path / "out.csv",
        ["predict", classes, "--data", folder / "held.csv", "--out"],
    )
    passed("decide", classes)
    assert run(*command, out).exit_code == 130
    passed("decide", classes, "--risk", 0.1)
    passed(*command, out)
    assert len(calls) == 3 + 8  # all of the 8 parts, though two were done
    passed(*command, tmp_path / "fresh.csv")
    assert out.read_bytes() == (tmp_path / "fresh.csv").read_bytes()


def test_blocks_are_decided_about_as_the_whole(folder, classes, numbers, monkeypatch):
    for model, more in ((classes, []), (numbers, ["--tolerance", 3])):
        for source in ([], held(folder, "price" if more else "kind")):
            passed("decide", model, *more, *source)
            whole = decided(model)
            with monkeypatch.context() as patch:
                patch.setattr(scored_rows, "MOST_BLOCK_ROWS", 70)
                passed("decide", model, *more, *source)
            assert_same(decided(model), whole)
            assert (whole["check"] is None) == bool(source)


def assert_same(found, expected) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    else:
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_numbers_have_intervals_and_with_a_tolerance_a_threshold(folder, numbers, tmp_path):
    said = passed("decide", numbers, *held(folder, "price"))
    assert "no threshold yet" in said
    assert "--tolerance X" in said
    assert "deviations contains the true number for 90% of new examples" in said
    frame = predicted(numbers, folder / "held.csv", tmp_path / "out.csv")
    assert list(frame)[-2:] == ["conformal_lower", "conformal_upper"]
    assert "answer" not in frame
    said = passed("decide", numbers, *held(folder, "price"), "--tolerance", 1e-6)
    assert "Allow more with --risk or --tolerance" in said
    said = passed("decide", numbers, *held(folder, "price"), "--tolerance", 2, "--risk", 0.1)
    found = decided(numbers)
    frame = predicted(numbers, folder / "held.csv", tmp_path / "out.csv")
    assert frame["answer"].mean() == found["threshold"]["coverage"]
    assert 0.3 < found["threshold"]["coverage"] < 1
    off = (frame["mean"] - pd.read_csv(folder / "held.csv")["price"]).abs() > 2
    assert off[frame["answer"]].mean() == pytest.approx(found["threshold"]["risk"])
    assert f"{off[frame['answer']].sum()} are off by more than 2" in said
    assert f"a standard deviation of {np.sqrt(found['threshold']['below']):.4g}" in said
    width = (frame["conformal_upper"] - frame["conformal_lower"]).mean()
    assert width == pytest.approx(found["intervals"]["mean_width"], rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "method"),
    [("gaussian_nll", "normalised"), ("mse", "absolute"), ("quantile", "quantiles")],
)
def test_intervals_of_new_rows_hold_what_they_promise(folder, loss, method, tmp_path):
    options = ["--task", "regression", "--loss", loss, "--epochs", 2]  # any model will do
    model = folder / "numbers" if loss == "gaussian_nll" else train(folder, loss, "price", *options)
    copied = Path(shutil.copytree(model, tmp_path / "model"))
    options = ["--tolerance", 2, "--risk", 0.1, "--coverage", 0.8]
    passed("decide", copied, *held(folder, "price"), *options)
    assert decided(copied)["intervals"]["method"] == method
    frame = predicted(copied, folder / "new.csv", tmp_path / "out.csv")
    price = pd.read_csv(folder / "new.csv")["price"]
    inside = (frame["conformal_lower"] <= price) & (price <= frame["conformal_upper"])
    assert inside.mean() == pytest.approx(0.8, abs=0.04)
    off = (frame["mean"] - price).abs() > 2
    if loss == "gaussian_nll":
        assert 0 < off[frame["answer"]].mean() <= 0.1 < off.mean()


def test_json_is_what_is_written(classes):
    done = run("decide", classes, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == decided(classes)


def test_where_no_threshold_is_found_none_are_answered_and_where_all_may_be_all(
    folder, classes, tmp_path
):
    said = passed("decide", classes, *held(folder), "--risk", 0.0001)
    assert "none. No threshold on the total uncertainty keeps the share of answers" in said
    found = decided(classes)["threshold"]
    assert (found["answers"], found["below"], found["risk"]) == ("none", None, None)
    out = tmp_path / "out.csv"
    said = passed("predict", classes, "--data", folder / "held.csv", "--out", out)
    assert "no row is answered" in said
    assert not pd.read_csv(out)["answer"].any()
    assert "Answer: always: 800 of 800" in passed("decide", classes, *held(folder), "--risk", 0.5)
    assert decided(classes)["threshold"]["answers"] == "all"
    assert predicted(classes, folder / "held.csv", out)["answer"].all()


def test_few_rows_hold_everything_and_say_so(folder, classes, numbers, tmp_path):
    pd.read_csv(folder / "held.csv")[:5].to_csv(tmp_path / "few.csv", index=False)
    few = ["--data", tmp_path / "few.csv"]
    assert "90% needs at least 9 examples, got 5, so every set contains every" in passed(
        "decide", classes, *few
    )
    frame = predicted(classes, tmp_path / "few.csv", tmp_path / "out.csv")
    assert names_in(frame["set"][0]) == sorted(KINDS)
    assert "so every interval is infinite" in passed("decide", numbers, *few)
    assert decided(numbers)["intervals"]["quantile"] is None
    frame = predicted(numbers, tmp_path / "few.csv", tmp_path / "out.csv")
    assert np.isinf(frame["conformal_upper"]).all()


def test_a_decision_is_checked_on_rows_that_it_was_not_fitted_on(folder, classes, numbers):
    said = passed("decide", classes, "--risk", 0.3)
    assert "90 calibration examples of train-kind.csv" in said
    check = decided(classes)["check"]
    assert (
        f"on the 800 held-out examples, which were used for nothing else, {check['answered']:.1%}"
        in said
    )
    frame = predicted(classes, folder / "held.csv", classes / "out.csv")
    truth = pd.read_csv(folder / "held.csv")["kind"]
    assert frame["answer"].mean() == pytest.approx(check["answered"])
    wrong = (frame["label"] != truth)[frame["answer"]]
    assert 0 < wrong.mean() == pytest.approx(check["risk"])
    sets = [names_in(text) for text in frame["set"]]
    inside = [kind in names for kind, names in zip(truth, sets, strict=True)]
    assert np.mean(inside) == pytest.approx(check["covered"])
    assert np.mean([len(names) for names in sets]) == pytest.approx(check["mean_size"])
    passed("decide", numbers)
    check = decided(numbers)["check"]
    frame = predicted(numbers, folder / "held.csv", numbers / "out.csv")
    price = pd.read_csv(folder / "held.csv")["price"]
    inside = (frame["conformal_lower"] <= price) & (price <= frame["conformal_upper"])
    assert inside.mean() == pytest.approx(check["covered"])
    assert (check["answered"], check["risk"]) == (None, None)
    before = decided(numbers)
    del before["check"]  # as an earlier version wrote
    (numbers / "decision.json").write_text(json.dumps(before))
    pd.testing.assert_frame_equal(predicted(numbers, folder / "held.csv", numbers / "2.csv"), frame)


def test_rows_that_chose_the_model_are_told_of(folder, classes, tmp_path):
    quick = ["--hidden", 8, "--members", 2, "--epochs", 2, "--patience", 50]
    passed("train", "--data", "breast_cancer", *quick, "--out", tmp_path / "named")
    said = passed("decide", tmp_path / "named")
    assert "where it was best on these held-out examples (patience)" in said
    # Of a table, rows are kept for each purpose.
    other = passed("decide", classes, "--data", folder / "held.csv", "--over-all")
    assert "Note" not in other
    assert "800 rows of held.csv" in other
    assert "Note" not in passed("decide", classes, *held(folder), "--over-all")
    same = passed("decide", classes, "--data", folder / "train-kind.csv")
    assert "The model was trained on all or most of these rows, so the results do not" in same
    assert "Note" not in passed("decide", classes, "--over-all")


def test_a_calibrated_model_is_told_of(classes):
    X, y = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), np.arange(50) % 3
    data = json.loads((classes / "config.json").read_text())["data"]
    be.save(be.calibrate(be.load(classes), (X, y)), classes, data=data)
    assert "The model is calibrated. If it was calibrated on these" in passed("decide", classes)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("classes", ["--tolerance", 1], "tolerance is for numbers"),
        ("classes", ["--by", "confidnce"], "did you mean 'confidence'?"),
        ("classes", ["--risk", 0], "risk must be a number above 0 and below 1, got 0.0"),
        ("classes", ["--risk", "few"], "give a number, got 'few'"),
        ("classes", ["--confidence", 1], "confidence must be a number above 0 and below 1"),
        ("classes", ["--coverage", 90], "coverage must be a number above 0 and below 1, got 90.0"),
        ("classes", ["--data", "nowhere.csv"], "nowhere.csv"),
        ("classes", ["--target", "x", "--data", "held.csv"], "the model knows"),
        ("numbers", ["--by", "confidence"], "which predicted numbers do not have"),
        ("numbers", ["--tolerance", -1], "tolerance must be a finite number above 0, got -1.0"),
        ("numbers", ["--target", "kind", "--data", "held.csv"], "must hold a number"),
        ("nothing", [], "no model"),
    ],
)
def test_what_does_not_fit_is_a_sentence_and_nothing_is_written(
    folder, name, arguments, expected, monkeypatch
):
    monkeypatch.chdir(folder)
    assert expected in sentence(run("decide", name, *arguments))
    assert not (folder / name / "decision.json").exists()


def test_labels_that_are_there_or_not_are_refused(folder, tmp_path):
    frame = pd.read_csv(folder / "train-kind.csv")
    frame.assign(kind=(frame["kind"] == KINDS[0]).astype(int)).to_csv(tmp_path / "t.csv")
    data = ["--data", tmp_path / "t.csv", "--target", "kind", "--loss", "binary_cross_entropy"]
    passed("train", *data, "--hidden", 8, "--epochs", 1, "--out", tmp_path / "model")
    assert "is a multi-label classifier" in sentence(run("decide", tmp_path / "model"))


def test_a_decision_of_other_weights_or_a_damaged_one_is_refused(folder, classes, numbers):
    passed("decide", classes)
    passed("decide", numbers)
    predict = ["predict", classes, "--data", folder / "held.csv", "--out", classes / "out.csv"]
    path = classes / "decision.json"
    whole = decided(classes)
    for content, expected in (
        (json.dumps({**whole, "model": "0"}), "is for other weights than"),
        (path.read_text()[:100], "cannot be read"),
        (json.dumps({**whole, "format": 2}), "it has the format 2, expected 1"),
        (json.dumps({**whole, "sets": None}), "it is of another kind of model"),
        (json.dumps({**whole, "sets": {}}), "cannot be read"),
        (json.dumps({**whole, "sets": {**whole["sets"], "highest_scores": [1]}}), "must be 3 num"),
        (json.dumps({**whole, "sets": {**whole["sets"], "highest_scores": 1}}), "must be 3 num"),
        ("[]", "cannot be read"),
        ((numbers / "decision.json").read_text(), "it is of another kind of model"),
    ):
        path.write_text(content)
        told = sentence(run(*predict))
        assert expected in told
        assert f"run batchensemble decide {classes} again, or delete it" in told
        assert not (classes / "out.csv").exists()
    passed("decide", classes)
    passed(*predict)


def test_an_id_must_not_be_called_as_a_column_of_the_decision(folder, classes, tmp_path):
    frame = pd.read_csv(folder / "held.csv").assign(answer=1)
    frame.to_csv(tmp_path / "in.csv", index=False)
    command = ["predict", classes, "--data", tmp_path / "in.csv", "--id", "answer"]
    passed(*command, "--out", tmp_path / "out.csv")
    passed("decide", classes)
    told = sentence(run(*command, "--out", tmp_path / "out.csv"))
    assert "id 'answer' is also the name of a column" in told


def test_named_data_and_streamed_files_are_decided_about_too(folder, tmp_path):
    quick = ["--hidden", 8, "--members", 2, "--epochs", 1]
    passed("train", "--data", "cubic", "--task", "regression", *quick, "--out", tmp_path / "cubic")
    assert "held-out examples of cubic" in passed("decide", tmp_path / "cubic", "--tolerance", 9)
    pytest.importorskip("pyarrow")
    pd.read_csv(folder / "train-kind.csv").to_parquet(tmp_path / "t.parquet", row_group_size=50)
    data = ["--data", tmp_path / "t.parquet", "--target", "kind", "--memory-limit", "3KB"]
    passed("train", *data, *quick, "--out", tmp_path / "large")
    passed("decide", tmp_path / "large", "--risk", 0.2)
    assert decided(tmp_path / "large")["examples"] == 90


def test_a_doubt_that_is_the_same_for_all_is_told_of(folder, tmp_path):
    model = train(folder, "single", "kind", "--method", "single", "--members", 1, "--epochs", 2)
    assert "The epistemic uncertainty is the same for all of these rows, so either all" in passed(
        "decide", model, "--by", "epistemic"
    )
    assert "Note" not in passed("decide", model, "--by", "total", "--over-all")


def test_help_teaches_with_examples():
    said = passed("decide", "--help")
    assert "batchensemble decide runs/prices --tolerance 20000 --risk 0.1" in said
    assert "decide" in passed("--help")
