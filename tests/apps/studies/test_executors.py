"""Jobs of a cluster work on a study as processes of one machine do."""

from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai._outcome import RunFailed
from genseg_monai.apps.studies import executors
from genseg_monai.apps.studies.executors import Work, read_options, submit_and_wait
from genseg_monai.errors import UserError


class Touch(Work):
    """Note that it ran, in place of training."""

    def __call__(self) -> int:
        path = Path(self.folder) / "ran"
        path.write_text(path.read_text() + "x" if path.exists() else "x")
        if self.folder.endswith("broken"):
            raise OSError("disk full")
        return 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, {}),
        ("partition=gpu", {"slurm_partition": "gpu"}),
        (" mem_gb=32 , gpus_per_node=1, account=a-b", {"mem_gb": 32, "gpus_per_node": 1, "slurm_account": "a-b"}),
    ],
)
def test_options(text, found):
    assert read_options(text) == found


@pytest.mark.parametrize("text", ["partition", "nodes=2", "a=b;c", "=x", "name=mine"])
def test_what_is_no_option_is_refused(text):
    with pytest.raises(UserError, match="--slurm: wanted options such as partition=gpu"):
        read_options(text)


def test_jobs_run_and_are_waited_for(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'genseg-monai[cluster]'")
    monkeypatch.setattr(executors, "Work", Touch)
    submit_and_wait(tmp_path, 2, "timeout_min=5", cluster="debug")
    assert (tmp_path / "ran").read_text() == "xx"


def test_a_job_that_breaks_is_told(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'genseg-monai[cluster]'")
    monkeypatch.setattr(executors, "Work", Touch)
    (tmp_path / "broken").mkdir()
    with pytest.raises(RunFailed, match="broke, .* says why; the same command goes on"):
        submit_and_wait(tmp_path / "broken", 1, None, cluster="debug")


def test_a_machine_without_slurm_says_so(tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'genseg-monai[cluster]'")
    with pytest.raises(UserError, match="--executor: wanted to submit 2 jobs to slurm, could not"):
        submit_and_wait(tmp_path, 2, None)


def test_a_job_that_has_to_end_is_submitted_again():
    pytest.importorskip("submitit", reason="needs submitit: pip install 'genseg-monai[cluster]'")
    again = Work("folder").checkpoint()
    assert again.function.folder == "folder"
