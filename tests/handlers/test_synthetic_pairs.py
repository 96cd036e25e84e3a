"""The final fit takes the pairs of the WGAN-GP, and goes on with them after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from genseg_monai.engines import LoopSettings, Shares, wasserstein
from genseg_monai.engines.state import load_file, load_state, save_file, take_state
from genseg_monai.errors import UserError
from genseg_monai.handlers import WassersteinPairs
from tests.engines.tiny import differing, frozen_state, make_trainer

SETTINGS = LoopSettings(Shares(warm_up=0, search=0, fine_tune=0, final_fit=1), baselines=())


def trainer(folder: Path, seen: list[torch.Tensor] | None = None, stop: int = 0):
    made = make_trainer(settings=SETTINGS, max_epochs=2, epoch_length=3)
    WassersteinPairs(folder, steps=2, count=6, width=2).attach(made)
    taken = made.synthesise

    def watch(*pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images, drawn = taken(*pairs)
        if seen is not None:
            seen.append(images)
        return images, drawn

    made.synthesise = watch  # type: ignore[method-assign]

    def save_and_stop(engine) -> None:
        if engine.state.iteration == stop:
            save_file(take_state(engine), folder / "state.pt")
            engine.terminate()

    made.add_event_handler(Events.ITERATION_COMPLETED, save_and_stop)
    return made


def test_the_final_fit_sees_its_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasserstein, "_CRITIC_STEPS", 1)
    seen: list[torch.Tensor] = []
    whole = trainer(tmp_path, seen)
    whole.run()
    pairs = load_file(tmp_path / "models" / "pairs" / "pairs.pt")
    assert pairs["images"].shape == (6, 1, 16, 16)
    assert len(seen) == 6
    known = {image.numpy().tobytes() for image in pairs["images"]}
    assert all(image.numpy().tobytes() in known for batch in seen for image in batch)
    assert (tmp_path / "pictures" / "panel_pairs.png").is_file()

    stopped = trainer(tmp_path, stop=3)
    stopped.run()
    again = trainer(tmp_path)
    again.add_event_handler(Events.STARTED, lambda engine: load_state(engine, load_file(tmp_path / "state.pt")))
    again.run()
    assert not differing(frozen_state(whole), frozen_state(again))


def test_patches_are_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.loader.cases = object()  # type: ignore[assignment]
    with pytest.raises(UserError, match="pair_steps: wanted whole images at a working size, got patches"):
        WassersteinPairs(tmp_path, steps=2)(made)
