"""Curves and pictures for TensorBoard and MLflow: the same ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ignite.engine import Events
from monai.handlers import TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genseg_monai.engines import StageEvents
from genseg_monai.errors import UserError
from genseg_monai.handlers import ArchitectureLog, History, SamplePanel, Track, make_writer, scalars
from tests.engines.tiny import EPOCHS, LENGTH, make_trainer

CURVES = {"loss", "synthetic_loss", "generator_loss", "discriminator_loss", "hypergradient_norm"}
PICTURES = {"panel_warm_up", "panel_search", "panel_fine_tune", "curves", "alpha"}


def tracked(out: Path, tracking: str) -> dict[str, float]:
    """Make a short run; return the last share of each candidate."""
    writer = make_writer(tracking, out)
    handlers = [
        ArchitectureLog(out),
        SamplePanel(out, count=1),
        History(out),
        TensorBoardStatsHandler(summary_writer=writer, output_transform=scalars),
        Track(writer, out),
    ]
    trainer = make_trainer(train_handlers=handlers)
    shares: dict[str, float] = {}

    def note(engine) -> None:
        names = engine.generator.candidate_names()
        for cell, weights in engine.generator.arch_weights().items():
            shares.update({f"alpha/{cell}/{n}": w for n, w in zip(names[cell], weights.tolist(), strict=True)})

    trainer.add_event_handler(StageEvents.OUTER_STEP_COMPLETED, note)
    comparison = out / "scores" / "comparison.csv"
    comparison.parent.mkdir(parents=True)
    comparison.write_text("arm,class,dice,jaccard,hd95\ngenseg,lesion,0.8,0.7,3.5\n")
    trainer.add_event_handler(Events.COMPLETED, lambda engine: None)
    trainer.run()
    return shares


def test_tensorboard_has_curves_panels_and_scores(tmp_path: Path) -> None:
    shares = tracked(tmp_path, "tensorboard")
    [path] = (tmp_path / "logs").glob("events.out.tfevents.*")
    events = EventAccumulator(str(path), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    assert CURVES | set(shares) | {"score/genseg/lesion/dice"} <= set(tags["scalars"])
    assert set(tags["images"]) == {f"pictures/{name}" for name in PICTURES}
    assert [event.step for event in events.Scalars("loss")] == list(range(1, EPOCHS * LENGTH + 1))
    for name, share in shares.items():
        assert events.Scalars(name)[-1].value == pytest.approx(share)
    assert events.Scalars("score/genseg/lesion/hd95")[0].value == 3.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own database calls use what SQLAlchemy gives up
def test_mlflow_has_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (the extra `tracking`)")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "run"
    shares = tracked(out, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out / 'logs' / 'mlflow.db'}")
    identifier = (out / "logs" / "mlflow_run.txt").read_text().strip()
    run = client.get_run(identifier)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert CURVES | set(shares) | {"score/genseg/lesion/dice"} <= set(run.data.metrics)
    steps = [metric.step for metric in client.get_metric_history(identifier, "loss")]
    assert sorted(steps) == list(range(1, EPOCHS * LENGTH + 1))
    for name, share in shares.items():
        assert run.data.metrics[name] == pytest.approx(share)
    drawn = [one.path for one in client.list_artifacts(identifier, "images")]
    assert all(any(name in path for path in drawn) for name in PICTURES)
    assert run.data.params["outer_every"] == "1"
    [board] = (out / "logs").glob("events.out.tfevents.*")
    assert set(EventAccumulator(str(board)).Reload().Tags()["scalars"]) >= CURVES

    again = make_writer("mlflow", out)  # a resumed run goes on with it
    again.add_scalar("loss", 0.5, EPOCHS * LENGTH + 1)
    again.close()
    assert client.get_metric_history(identifier, "loss")[-1].value == 0.5
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_without_mlflow_it_is_told_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match='pip install "mlflow>=3'):
        make_writer("mlflow", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_word_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tracking: wanted tensorboard or mlflow, got 'wandb'"):
        make_writer("wandb", tmp_path)
