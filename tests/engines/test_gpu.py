"""A whole run on a GPU, where there is one."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.engines import Acceleration, LoopSettings, Phase, measure
from genseg_monai.engines.state import load_file
from genseg_monai.handlers import Checkpointer, Resume, StopOnDivergence
from genseg_monai.handlers.checkpoint import checkpoints
from tests.engines.test_stages import flat
from tests.engines.tiny import EPOCHS, LENGTH, SHARES, make_trainer

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "dropout"])
def test_a_run_and_its_continuation(tmp_path, dims, kind):
    handlers = [StopOnDivergence(tmp_path), Checkpointer(tmp_path, keep=EPOCHS)]
    trainer = make_trainer(dims=dims, kind=kind, device="cuda", train_handlers=handlers)
    alpha = {name: value.detach().clone() for name, value in trainer.generator.arch_parameters().items()}
    assert measure(trainer).peak_bytes > 0
    trainer.run()
    assert trainer.state.iteration == EPOCHS * LENGTH
    assert set(trainer.players.trained) == {Phase.PLAIN, Phase.AUGMENT}
    assert all(parameter.is_cuda for parameter in trainer.network.parameters())

    searched = load_file(tmp_path / f"iteration_{LENGTH}.pt")
    assert any((searched["generator"][name] != value.cpu()).any() for name, value in alpha.items())
    for path in checkpoints(tmp_path)[3:]:
        path.unlink()
    again = make_trainer(dims=dims, kind=kind, device="cuda", train_handlers=[Resume(tmp_path, wanted=True)])
    again.run()
    # a GPU adds up in no fixed order: close, not equal
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "float32"},
        {"precision": "tf32"},
        {"precision": "bfloat16", "channels_last": False},
        {"precision": "bfloat16", "compile": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("estimator", ["mixed", "finite_difference"])
def test_every_way_of_running_ends_where_the_cpu_does(settings, estimator):
    """Not to the bit: other sums, other rounding. Without the noise of augmentation, which each device draws itself."""
    loop = LoopSettings(SHARES, (), outer_every=1, outer_after=1, estimator=estimator)
    ends = []
    for device in ("cpu", "cuda"):
        acceleration = Acceleration(device, **settings) if device == "cuda" else None
        trainer = make_trainer(device=device, fused=True, settings=loop, acceleration=acceleration, augment=None)
        trainer.run()
        ends.append(flat(dict(trainer.network.named_parameters())).cpu())
    torch.testing.assert_close(ends[1], ends[0], rtol=0.1, atol=0.05)
