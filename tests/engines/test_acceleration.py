"""Number format, memory format, compilation, fused optimisers: what they leave as it was, how far they may stray."""

from __future__ import annotations

import copy
import traceback
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn
from torch.ops import aten
from torch.utils._python_dispatch import TorchDispatchMode

from genseg_monai.engines import Acceleration, GenSegTrainer, LoopSettings, Phase, iterations, load_state, stages
from genseg_monai.engines.acceleration import Precision, _products
from genseg_monai.engines.state import load_file, save_file, take_state
from genseg_monai.errors import UserError
from genseg_monai.multilevel import hypergradient
from genseg_monai.multilevel.tree import Tree
from tests.engines.test_stages import ONE, SEARCH_ALONE, THREE, TWO, flat, moved, watch
from tests.engines.tiny import differing, frozen_state, make_trainer

BFLOAT16 = Acceleration("cpu", precision="bfloat16")
LAID_OUT = Acceleration("cpu", channels_last=True)


# --- the settings


def test_auto_means_float32_on_a_cpu():
    auto = Acceleration("cpu")
    assert (auto.precision, auto.channels_last, auto.fused, auto.exact) == (Precision.FLOAT32, False, True, True)
    assert not BFLOAT16.exact
    assert not Acceleration("cpu", compile=True).exact


@pytest.mark.parametrize(("capability", "wanted"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_on_a_gpu_goes_by_what_it_can(monkeypatch, capability, wanted):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    auto = Acceleration("cuda")
    assert (auto.precision, auto.channels_last, auto.fused) == (wanted, True, True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "half"}, "wanted one of auto, float32, tf32, bfloat16, got 'half'"),
        ({"precision": "tf32"}, "tf32 wants a GPU of compute capability 8.0; take float32 on cpu"),
        ({"device": "meta", "fused": True}, "wanted a device of cpu, cuda, got meta"),
    ],
)
def test_what_a_device_cannot_do_is_refused(settings, words):
    with pytest.raises(UserError, match=words):
        Acceleration(**{"device": "cpu"} | settings)


def test_the_rules_for_products_hold_inside_the_block_alone():
    def now() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, cudnn.deterministic

    before = now()

    def fail(tf32: bool) -> None:
        with _products(tf32=tf32, benchmark=True):
            assert now() == (tf32, True, tf32, before[3])
            raise KeyError

    for tf32 in (True, False):
        with pytest.raises(KeyError):
            fail(tf32)
        assert now() == before


# --- number format


def test_passes_run_in_bfloat16_and_give_float32():
    seen: list[torch.dtype] = []
    layer = nn.Conv2d(1, 2, 3)
    layer.register_forward_hook(lambda module, given, found: seen.append(found.dtype))
    images = torch.rand(1, 1, 8, 8)
    assert BFLOAT16.forward(layer, images).dtype == torch.float32
    assert BFLOAT16.inferer(SimpleInferer())(images, layer).dtype == torch.float32
    assert (
        BFLOAT16.inferer(SlidingWindowInferer((8, 8)))(images, nn.Sequential(layer, nn.Upsample((8, 8)))).shape[1] == 2
    )
    assert seen == [torch.bfloat16] * 3
    assert Acceleration("cpu").forward(layer, images.double().float()).dtype == torch.float32
    assert seen[-1] == torch.float32


def test_in_bfloat16_every_stage_moves_its_own_level_and_alpha_moves():
    settings = LoopSettings(SEARCH_ALONE, (), outer_every=2, outer_after=1)
    trainer = make_trainer(acceleration=BFLOAT16, settings=settings, max_epochs=1)
    seen = watch(trainer, ONE, TWO, THREE)
    trainer.run()
    wanted = {ONE: {"theta", "psi"}, TWO: {"phi"}, THREE: {"alpha"}}
    names = [name for _, name, _ in seen]
    assert names.count(THREE) == 2
    for (_, _, before), (_, name, after) in pairwise(seen):
        assert moved(before, after) == wanted.get(name, set()), name
    memories = [m for memory in trainer.optimizer.state.values() for m in memory.values()]
    assert {value.dtype for value in [*trainer.players.tensors(), *memories]} == {torch.float32}


def build(dtype: torch.dtype, estimator: str, epsilon: float, acceleration: Acceleration, **arguments: Any) -> Any:
    settings = LoopSettings(SEARCH_ALONE, (), outer_every=1, outer_after=10, estimator=estimator, epsilon=epsilon)
    return make_trainer(
        dtype=dtype, settings=settings, acceleration=acceleration, max_epochs=2, epoch_length=50, **arguments
    )


def take(trainer: GenSegTrainer, step: int) -> None:
    """Take iteration ``step`` of the search."""
    batch = trainer.loader.draw()
    trainer.take(Phase.SEARCH, step, batch["image"], trainer.to_masks(batch["label"]), lambda event, **values: None)


def one_hypergradient(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], trainer: GenSegTrainer, stage_three: Any = None
) -> Tensor:
    """Return the hypergradient of the iteration after ``state``, taken by ``trainer``."""
    caught: list[Tensor] = []

    def recorder(*levels: Any, **named: Any) -> Tree:
        found = hypergradient(*levels, **named)
        caught.append(flat(found).double())
        return found

    with monkeypatch.context() as patch:
        patch.setattr(stages, "hypergradient", recorder)
        if stage_three is not None:
            patch.setattr(iterations, "architecture_step", stage_three)
        load_state(trainer, copy.deepcopy(state) | {"data": trainer.loader.cases.digest()})
        take(trainer, 10)
    (found,) = caught
    return found


def under_autocast(*given: Any, **named: Any) -> Any:
    """Take stage III's step in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return stages.architecture_step(*given, **named)


@pytest.fixture(scope="module", params=["plain", "batch_norm"])
def warm(request) -> tuple[str, dict[str, Any]]:
    """A segmenter's kind and the state after 12 iterations of a search in float32, none of them of stage III."""
    trainer = build(torch.float32, "mixed", 0.01, Acceleration("cpu"), kind=request.param)
    for _ in range(12):
        take(trainer, 0)
    return request.param, copy.deepcopy(take_state(trainer))


@pytest.mark.parametrize("estimator", ["mixed", "finite_difference", "hybrid"])
def test_the_hypergradient_of_a_bfloat16_iteration_is_that_of_float64(monkeypatch, warm, estimator):
    """From the same state. Measured over 4 seeds, 2D and 3D: cosine 0.9985 or more, length within 3.7 %."""
    kind, state = warm
    wanted, float32, bfloat16 = (
        one_hypergradient(monkeypatch, state, build(dtype, estimator, 0.01, acceleration, kind=kind))
        for dtype, acceleration in (
            (torch.float64, Acceleration("cpu")),
            (torch.float32, Acceleration("cpu")),
            (torch.float32, BFLOAT16),
        )
    )
    assert cosine(float32, wanted) > 0.9999
    assert cosine(bfloat16, wanted) > 0.998
    assert float(bfloat16.norm() / wanted.norm()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(bfloat16, float32)


def test_differences_in_bfloat16_would_lose_their_step(monkeypatch, warm):
    """What the test above would see if stage III's passes were under autocast too; the worse the more weights."""
    kind, state = warm
    wanted, ours, lost = (
        one_hypergradient(
            monkeypatch, state, build(dtype, "finite_difference", 1e-3, acceleration, kind=kind), stage_three
        )
        for dtype, acceleration, stage_three in (
            (torch.float64, Acceleration("cpu"), None),
            (torch.float32, BFLOAT16, None),
            (torch.float32, BFLOAT16, under_autocast),
        )
    )
    assert cosine(ours, wanted) > 0.998
    assert 1 - cosine(lost, wanted) > 10 * (1 - cosine(ours, wanted))


def cosine(left: Tensor, right: Tensor) -> float:
    return float(left @ right / (left.norm() * right.norm()))


def test_a_run_in_bfloat16_continues_to_the_bit(tmp_path):
    whole = make_trainer(acceleration=BFLOAT16, kind="dropout")
    torch.manual_seed(1)
    whole.run()
    first = make_trainer(acceleration=BFLOAT16, kind="dropout")
    torch.manual_seed(1)
    stop_after(first, 5, tmp_path / "state.pt")
    assert (
        differing(
            frozen_state(resumed(tmp_path / "state.pt", acceleration=BFLOAT16, kind="dropout")), frozen_state(whole)
        )
        == []
    )


def stop_after(trainer: GenSegTrainer, iterations: int, path: Any) -> None:
    """Run some iterations and save."""

    def stop(engine: Any) -> None:
        save_file(take_state(engine), path)
        raise KeyboardInterrupt

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iterations), stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def resumed(path: Any, **arguments: Any) -> GenSegTrainer:
    """Build a trainer, and let it go on."""
    trainer = make_trainer(**arguments)
    torch.manual_seed(99)
    trainer.add_event_handler(Events.STARTED, lambda e: load_state(e, load_file(path)))
    trainer.run()
    return trainer


# --- memory format, fused optimisers, compilation: the same values, the same names


@pytest.fixture(scope="module")
def ordinary() -> dict[str, Any]:
    """The end of a run without any of them."""
    trainer = make_trainer()
    trainer.run()
    return frozen_state(trainer)


def close(state: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("network", "generator", "discriminator", "trained"):
        torch.testing.assert_close(state[part], other[part], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    "settings", [{"acceleration": LAID_OUT}, {"fused": True}, {"acceleration": LAID_OUT, "fused": True}]
)
def test_layout_and_fused_steps_change_rounding_alone(tmp_path, ordinary, settings):
    trainer = make_trainer(**settings)
    stop_after(trainer, 5, tmp_path / "state.pt")
    saved = load_file(tmp_path / "state.pt")
    # to the bit with the same settings, and up to rounding with the others
    whole = make_trainer(**settings)
    whole.run()
    assert differing(frozen_state(resumed(tmp_path / "state.pt", **settings)), frozen_state(whole)) == []
    close(frozen_state(whole), ordinary)
    close(frozen_state(resumed(tmp_path / "state.pt")), ordinary)
    assert [list(saved[name]) for name in ("network", "generator")] == [
        list(frozen_state(make_trainer())[name]) for name in ("network", "generator")
    ]


def test_memories_of_another_layout_are_brought_to_that_of_the_weights(tmp_path, ordinary):
    """A fused step walks weights and memories in the order they lie, and would mix them up without a word."""
    stop_after(make_trainer(fused=True), 5, tmp_path / "state.pt")
    trainer = resumed(tmp_path / "state.pt", acceleration=LAID_OUT, fused=True)
    close(frozen_state(trainer), ordinary)
    for parameter, memory in trainer.optimizer.state.items():
        assert memory["exp_avg"].stride() == parameter.stride()


def test_the_derived_generator_and_the_baselines_are_laid_out_too():
    trainer = make_trainer(acceleration=LAID_OUT)
    trainer.players.derive()
    trainer.players.begin_baseline()
    for module in (trainer.generator, trainer.players.segmenter):
        kernels = [p for p in module.parameters() if p.ndim == 4]
        assert kernels
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_a_compiled_run_gives_the_same_and_its_checkpoint_has_the_same_names(tmp_path, monkeypatch, ordinary):
    """Compiled graphs refuse a second derivative: stage III must not meet them."""
    compiled: list[nn.Module] = []
    compile_with = torch.compile

    def recorder(function: Any, **settings: Any) -> Any:
        # the backend that traces forward and backward, but needs no C++ compiler
        graph = compile_with(function, backend="aot_eager", **settings)

        def run(forward: Any, *inputs: Any) -> Any:
            compiled.append(forward)
            return graph(forward, *inputs)

        return run

    monkeypatch.setattr(torch, "compile", recorder)
    trainer = make_trainer(acceleration=Acceleration("cpu", compile=True))
    stop_after(trainer, 8, tmp_path / "state.pt")
    kinds = {type(module).__name__ for module in compiled}
    assert kinds == {"Sequential", "PatchDiscriminator", "DiscreteGenerator"}
    end = frozen_state(resumed(tmp_path / "state.pt"))
    close(end, ordinary)
    assert [list(end[name]) for name in ("network", "generator")] == [
        list(ordinary[name]) for name in ("network", "generator")
    ]


# --- nothing is read back from the device


class Reads(TorchDispatchMode):
    """Notes where an operation reads numbers for Python, or waits for the device in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation in (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default):
            ours = [
                frame for frame in traceback.extract_stack() if {"genseg_monai", "optim"} & {*frame.filename.split("/")}
            ]
            self.places[ours[-1].filename.rpartition("/")[-1]] += 1
        return operation(*args, **kwargs or {})


@pytest.mark.parametrize(("estimator", "read"), [("mixed", 0), ("finite_difference", 4)])
@pytest.mark.parametrize("kind", ["plain", "batch_norm", "dropout"])
def test_an_iteration_reads_nothing_from_the_device(kind, estimator, read):
    """The draws and the questions asked of them (`intensity.py`) stay on the CPU; differences ask for a norm."""
    settings = LoopSettings(SEARCH_ALONE, (), outer_every=2, outer_after=0, estimator=estimator)
    trainer = make_trainer(kind=kind, fused=True, settings=settings)
    take(trainer, 1)
    for step, wanted in ((1, {}), (2, {"hypergradient.py": read})):
        with Reads() as reads:
            take(trainer, step)
        assert reads.places.pop("intensity.py") <= 4
        assert reads.places == Counter(wanted), step


def test_the_count_sees_an_optimiser_that_reads_its_steps():
    trainer = make_trainer()
    with Reads() as reads:
        take(trainer, 1)
    assert reads.places["optimizer.py"] > 0
