"""The ledger under several processes, a crash in the middle of a line, and a process that vanishes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from genseg_monai.apps.studies.ledger import Ledger, State

_WRITE = """
import sys
from genseg_monai.apps.studies.ledger import Ledger, State
ledger = Ledger(sys.argv[1])
for i in range(60):
    ledger.append(f"{sys.argv[2]}_{i}", State.DONE, text="x" * 3000)
"""

_CLAIM = """
import os, sys
from pathlib import Path
from genseg_monai.apps.studies.ledger import Ledger, State
ledger = Ledger(sys.argv[1])
for i in range(20):
    cell = f"cell_{i}"
    with ledger.claim(cell) as mine:
        if mine and not ledger.is_done(cell):
            Path(sys.argv[1], "runs.txt").open("a").write(cell + "\\n")
            ledger.append(cell, State.DONE)
"""

_VANISH = """
import os, sys
from genseg_monai.apps.studies.ledger import Ledger, State
ledger = Ledger(sys.argv[1])
with ledger.claim("cell"):
    ledger.append("cell", State.STARTED)
    print("held", flush=True)
    sys.stdin.readline()
"""


def start(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate()
        assert process.returncode == 0


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    finish(*[start(_WRITE, tmp_path, name) for name in "ab"])
    ledger = Ledger(tmp_path)
    assert set(ledger.latest()) == {f"{name}_{i}" for name in "ab" for i in range(60)}
    assert len(ledger.path.read_bytes().splitlines()) == 120
    order = [record["cell"] for record in ledger.records() if record["cell"].startswith("a")]
    assert order == [f"a_{i}" for i in range(60)]


def test_nothing_runs_twice(tmp_path: Path) -> None:
    finish(*[start(_CLAIM, tmp_path) for _ in range(2)])
    runs = (tmp_path / "runs.txt").read_text().split()
    assert sorted(runs) == sorted(f"cell_{i}" for i in range(20))


def test_a_claim_goes_when_its_process_is_killed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    process = start(_VANISH, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with ledger.claim("cell") as mine:
        assert not mine
    with ledger.claim("another") as mine:
        assert mine
    process.kill()
    process.communicate()
    with ledger.claim("cell") as mine:
        assert mine
    assert ledger.deaths("cell") == 1
    assert not ledger.is_done("cell")


def test_a_line_cut_short_is_left_out_and_closed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("a", State.DONE, dice=0.5)
    with ledger.path.open("ab") as file:
        file.write(b'{"cell": "b", "state": "do')
    assert set(ledger.latest()) == {"a"}
    ledger.append("c", State.FAILED, reason="out of memory")
    assert set(ledger.latest()) == {"a", "c"}
    assert ledger.path.read_bytes().endswith(b"}\n")
    with ledger.path.open("ab") as file:
        file.write(b'[1]\nnot json\n{"cell": "d"}\n{"cell": "e", "state": "unheard of"}\n')
    assert set(ledger.latest()) == {"a", "c"}


def test_the_last_word_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for state in (State.STARTED, State.STOPPED, State.STARTED, State.STARTED):
        ledger.append("a", state)
    assert ledger.deaths("a") == 2
    assert not ledger.is_done("a")
    ledger.append("a", State.DONE)
    assert ledger.deaths("a") == 0
    assert ledger.is_done("a")
    assert ledger.latest()["a"]["state"] == "done"
