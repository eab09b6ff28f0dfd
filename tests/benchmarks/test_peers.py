"""The page on peers: what was found finds its place."""

from benchmarks.peers import page
from benchmarks.peers.libraries import LIBRARIES
from benchmarks.peers.networks import NETWORKS


def test_what_was_found_is_written_between_the_marks_of_the_page(tmp_path, monkeypatch, capsys):
    own = tmp_path / "peers.md"
    own.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", own)
    monkeypatch.setattr(page, "ROOT", tmp_path)
    works = {"layers": 3, "layers bent": 3, "kept": 6, "tensors": 6, "shape": [8, 4, 3]}
    fails = {"layers": 3, "errors": {"converting": "TypeError: no [such] layer | here"}}
    found = {
        library: dict.fromkeys(NETWORKS, works if library == "batchensemble" else fails)
        for library in LIBRARIES
    }
    before = own.read_text(encoding="utf-8")
    page.show(found, write=False)
    assert own.read_text(encoding="utf-8") == before
    page.show(found, write=True)
    assert "wrote peers.md" in capsys.readouterr().out
    text = own.read_text(encoding="utf-8")
    assert "| MLP | works | error when converting: TypeError: no [such] layer / here |" in text
    assert "| MLP | batchensemble | [8, 4, 3] | 3 of 3 |" in text
    assert "model = be.BatchEnsemble(net, members=4)\ny = model(x)" in text
    assert text.startswith(before.partition("<!--")[0])
    page.show(found, write=True)
    assert own.read_text(encoding="utf-8") == text
