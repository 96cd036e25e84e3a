"""The script that measures a GPU, run on the CPU: every block comes to its end, and what it writes is whole."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu
from benchmarks.gpu_rows import Row


def test_every_block_runs(tmp_path):
    gpu.main(["--out", str(tmp_path), "--device", "cpu", "--quick"])
    held = json.loads((tmp_path / "gpu.json").read_text())
    assert held["left_out"] == []
    assert set(held["peaks"]) == {"bfloat16", "float32"}
    first, second = held["rows"]
    assert (first["precision"], second["precision"]) == ("bfloat16", "float32")
    for row in (first, second):
        parts = row["stage I"] + row["stage II"] + row["stage III"]
        assert 0.5 * row["iteration"] < parts <= 1.001 * row["iteration"]
        assert 0 < row["share"] < 1
    assert first["GFLOP"] == pytest.approx(second["GFLOP"])  # the same work in other numbers
    assert first["iteration/floor"] > 0.1  # of the wall clock, which other work disturbs
    for row in held["hypergradient"]:
        assert row["cosine"] > (0.99999 if row["precision"] == "float32" else 0.99)
    (paper,) = held["paper"]
    assert paper["extrapolated"] == pytest.approx(sum(paper["seconds"][name] * n for name, n in paper["steps"].items()))
    assert sum(paper["short"]["steps"].values()) == 12
    table = (tmp_path / "gpu.md").read_text()
    assert "| bfloat16 | 1 | 0 |" in table
    assert "**Extrapolated**" in table


def test_what_there_is_no_time_for_is_named(tmp_path, capsys):
    gpu.main(["--out", str(tmp_path), "--device", "cpu", "--quick", "--minutes", "0"])
    held = json.loads((tmp_path / "gpu.json").read_text())
    assert held["rows"] == []
    assert len(held["left_out"]) == 5
    assert "left out row (size 32, batch 2, width 4, precision bfloat16" in capsys.readouterr().out


def test_a_block_that_fails_leaves_the_others(tmp_path):
    report = gpu.Report(tmp_path, 60.0)
    report.held |= {"device": "none", "torch": "0", "command": ""}

    def fail() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")

    report.block("large", fail)
    assert report.held["left_out"] == ["large: RuntimeError: CUDA out of memory. Tried to allocate 20.00 GiB"]


def test_the_table_holds_every_setting_once_the_most_important_first():
    rows = gpu.plan(quick=False, cuda=True)
    assert rows[0] == Row(128, 2, 32)
    assert len(set(rows)) == len(rows) == 2 * 3 * 2 * 3 * 2 * 2


def test_without_a_gpu_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    assert "no GPU to be found; --device cpu --quick tries the same code" in capsys.readouterr().err
