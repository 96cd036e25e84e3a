"""Every trained segmenter on the same held-out cases, side by side."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted

from genseg_monai.handlers import CaseScores, FinalScores, run_summary
from genseg_monai.metrics.cases import score_case, summarise
from tests.engines.tiny import differing, make_cases, make_trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """A run whose handler scored four held-out cases of two classes."""
    out = tmp_path_factory.mktemp("runs")
    trainer = make_trainer()
    cases = make_cases(4, seed=5)
    held_out = [
        {"image": image, "label": label, "case": f"case {i}"}
        for i, (image, label) in enumerate(zip(cases.images, cases.labels, strict=True))
    ]
    scores = CaseScores(out / "scores", ("background", "lesion"))
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(Dataset(held_out), batch_size=1),
        trainer.network,
        postprocessing=AsDiscreted("pred", argmax=True),
        val_handlers=[scores],
    )
    FinalScores(evaluator, scores, out).attach(trainer)
    trainer.run()
    return out, trainer, held_out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_arm_is_scored_with_its_own_weights(run):
    out, trainer, held_out = run
    arms = {"genseg": trainer.network.state_dict()}
    arms |= {str(phase): weights for phase, weights in trainer.players.trained.items()}
    table = rows(out / "scores" / "comparison.csv")
    assert [row["arm"] for row in table] == ["genseg", "plain", "augment"]
    network = make_trainer().network.eval()
    for row in table:
        network.load_state_dict(arms[row["arm"]])
        wanted = []
        for case in held_out:
            with torch.no_grad():
                found = network(case["image"][None]).argmax(1)
            wanted += score_case(found, case["label"], ("background", "lesion"), None, case=case["case"], group="g")
        mean = summarise(wanted)["classes"]["lesion"]
        assert float(row["dice"]) == pytest.approx(mean["dice"]["mean"], abs=1e-4)
        assert float(row["jaccard"]) == pytest.approx(mean["jaccard"]["mean"], abs=1e-4)
        assert float(row["hd95"]) == pytest.approx(mean["hd95"]["mean"], abs=1e-2)
        assert float(row["dice_low"]) <= float(row["dice"]) <= float(row["dice_high"])
        assert (row["cases"], row["class"], row["unit"]) == ("4", "lesion", "pixel")
        per_case = rows(out / "scores" / f"{row['arm']}.csv")
        assert [entry["case"] for entry in per_case] == [f"case {i}" for i in range(4)]


def test_the_network_ends_with_the_weights_of_genseg(run):
    """The handler is the last to touch it; what was written as model.pt is what the trainer holds."""
    out, trainer, _ = run
    assert not trainer.players.trained[next(iter(trainer.players.trained))].keys() - trainer.network.state_dict().keys()
    for weights in trainer.players.trained.values():
        assert differing(dict(trainer.network.state_dict()), weights)


def test_the_summary_names_the_arms_and_what_was_written(run):
    out, _, _ = run
    text = run_summary(out)
    assert text.startswith("Held-out cases: 4.")
    for title in ("GenSeg ", "plain segmenter ", "plain + augmentation "):
        assert title in text
    assert str(out / "scores" / "comparison.csv") in text
    assert "model.pt" not in text  # this run has none


def test_a_folder_without_scores_is_summarised_too(tmp_path):
    assert run_summary(tmp_path) == "Written:"
