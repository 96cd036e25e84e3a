"""Ownership of tensors and the preconditioner of the optimiser's step."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.multilevel import InnerStep, adam_preconditioner, assert_disjoint


def _parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.nn.Parameter(torch.randn(n, dtype=torch.float64, generator=generator))
        for name, n in (("a", 3), ("b", 2))
    }


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW], ids=lambda make: make.__name__)
@pytest.mark.parametrize("steps", [1, 5])
def test_adam_preconditioner_is_the_derivative_of_the_step_with_vhat_held(make, steps):
    parameters = _parameters()
    optimizer = make(parameters.values(), lr=0.1, betas=(0.5, 0.999))
    gradients = {
        name: torch.randn_like(p, generator=torch.Generator().manual_seed(1)) for name, p in parameters.items()
    }
    for _ in range(steps - 1):
        for name, p in parameters.items():
            p.grad = gradients[name].clone()
        optimizer.step()
    momentum = {
        name: optimizer.state[p]["exp_avg"].clone() if optimizer.state[p] else torch.zeros_like(p)
        for name, p in parameters.items()
    }
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for name, p in parameters.items():
        p.grad = gradients[name].clone()
    optimizer.step()
    preconditioner = adam_preconditioner(optimizer, parameters)
    assert preconditioner is not None
    decay = optimizer.param_groups[0]["weight_decay"] if make is torch.optim.AdamW else 0.0
    for name, p in parameters.items():
        # step = -lr P (g + beta1/(1-beta1) m_before) and, for AdamW, the decay
        driving = gradients[name] + 0.5 / (1 - 0.5) * momentum[name]
        expected = before[name] * (1 - 0.1 * decay) - 0.1 * preconditioner[name] * driving
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-12)


def test_sgd_is_the_identity():
    parameters = _parameters()
    assert adam_preconditioner(torch.optim.SGD(parameters.values(), lr=0.1), parameters) is None


def test_other_optimisers_and_unstepped_weights_are_refused():
    parameters = _parameters()
    with pytest.raises(TypeError, match="SGD, Adam and AdamW, but the optimiser is RMSprop"):
        adam_preconditioner(torch.optim.RMSprop(parameters.values()), parameters)
    with pytest.raises(ValueError, match="a has not been stepped"):
        adam_preconditioner(torch.optim.Adam(parameters.values()), parameters)


def test_a_tensor_has_one_owner():
    parameters = _parameters()
    assert_disjoint(generator={"a": parameters["a"]}, segmenter={"b": parameters["b"]})
    with pytest.raises(ValueError, match="a of level 'segmenter' belongs to level 'generator'"):
        assert_disjoint(generator=parameters, segmenter={"a": parameters["a"]})


def test_an_inner_step_keeps_its_names():
    with pytest.raises(ValueError, match="same names"):
        InnerStep({"a": torch.zeros(1)}, {"b": torch.zeros(1)}, 0.1)
