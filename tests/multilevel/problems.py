"""Small three-level problems with a known answer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genseg_monai.multilevel import InnerStep, ThreeLevels
from genseg_monai.multilevel.tree import Tree, detached, gradient, multiply

F64 = torch.float64


def stepped(levels: ThreeLevels) -> ThreeLevels:
    """Take both inner steps of ``levels`` by their formula, and fill in the points reached."""
    point = detached(levels.generator.point, requires_grad=True)
    slope = multiply(gradient(levels.generator_loss(point, levels.outer), point), levels.generator.preconditioner)
    theta = {n: (point[n] - levels.generator.rate * slope[n]).detach() for n in point}
    images, masks = (x.detach() for x in levels.synthesise(theta, levels.outer))
    phi = detached(levels.segmenter.point, requires_grad=True)
    loss = levels.real_loss(phi) + levels.gamma * levels.synthetic_loss(phi, images, masks)
    slope = multiply(gradient(loss, phi), levels.segmenter.preconditioner)
    reached = {n: (phi[n] - levels.segmenter.rate * slope[n]).detach() for n in phi}
    return replace(
        levels, generator=replace(levels.generator, reached=theta), segmenter=replace(levels.segmenter, reached=reached)
    )


def positive(tree: Tree, seed: int) -> Tree:
    """Draw a diagonal preconditioner."""
    random = torch.Generator().manual_seed(seed)
    return {n: 0.5 + torch.rand(v.shape, dtype=F64, generator=random) for n, v in tree.items()}


def quadratic(gamma: float = 0.7, loss_scale: float = 1.0) -> tuple[ThreeLevels, Tensor]:
    """Return a linear-quadratic problem and its hypergradient in closed form."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=random)

    a, b, r = draw(5, 4), draw(5, 3), draw(5)
    c, d = draw(6, 4), draw(6, 3)
    e, f = draw(6, 7), draw(6, 6)
    s, t = draw(4, 7), draw(4)
    v, w = draw(8, 7), draw(8)
    theta, phi, alpha = {"t": draw(4)}, {"p": draw(7)}, {"a": draw(3)}
    p_g, p_s, eta_g, eta_s = positive(theta, 1), positive(phi, 2), 0.1, 0.05

    levels = stepped(
        ThreeLevels(
            outer=alpha,
            generator=InnerStep(theta, theta, eta_g, p_g),
            segmenter=InnerStep(phi, phi, eta_s, p_s),
            generator_loss=lambda theta, alpha: 0.5 * (a @ theta["t"] + b @ alpha["a"] - r).square().sum(),
            synthesise=lambda theta, alpha: (c @ theta["t"] + d @ alpha["a"], torch.zeros(1, dtype=F64)),
            synthetic_loss=lambda phi, x, m: 0.5 * (e @ phi["p"] - f @ x).square().sum(),
            real_loss=lambda phi: 0.5 * (s @ phi["p"] - t).square().sum(),
            search_loss=lambda phi: loss_scale * 0.5 * (v @ phi["p"] - w).square().sum(),
            gamma=gamma,
        )
    )
    # d theta'/d alpha = -eta_g P_g A'B;  d xhat/d alpha = C d theta'/d alpha + D;  d phi'/d xhat = eta_s gamma P_s E'F
    image_by_alpha = c @ (-eta_g * p_g["t"][:, None] * (a.T @ b)) + d
    weight_by_image = eta_s * gamma * p_s["p"][:, None] * (e.T @ f)
    reached = levels.segmenter.reached["p"]
    answer = image_by_alpha.T @ weight_by_image.T @ v.T @ (v @ reached - w) * loss_scale
    return levels, answer


class TinyGenerator(nn.Module):
    """A mixture of two convolutions, tanh, one convolution: mask -> image."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide, self.head = (
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(2, 3, 5, padding=2),
            nn.Conv2d(3, 1, 1),
        )
        self.alpha = nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, masks: Tensor) -> Tensor:
        p = self.alpha.softmax(0)
        return torch.tanh(self.head(torch.tanh(p[0] * self.narrow(masks) + p[1] * self.wide(masks))))


def convolutional(*, smooth: bool = True, seed: int = 0) -> ThreeLevels:
    """Return a problem on small convolutional networks (tanh and squared error if ``smooth``)."""
    torch.manual_seed(seed)
    generator = TinyGenerator().double()
    activation = nn.Tanh() if smooth else nn.LeakyReLU(0.2)
    segmenter = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), activation, nn.Conv2d(4, 2, 3, padding=1)).double()
    masks = torch.nn.functional.one_hot(torch.randint(0, 2, (2, 8, 8)), 2).movedim(-1, 1).to(F64)
    real, warped, search = torch.randn(3, 2, 1, 8, 8, dtype=F64).unbind()
    theta = {n: p.detach() for n, p in generator.named_parameters() if n != "alpha"}
    alpha = {"alpha": generator.alpha.detach()}
    phi = {n: p.detach() for n, p in segmenter.named_parameters()}

    def error(left: Tensor, right: Tensor) -> Tensor:
        return (left - right).square().mean() if smooth else (left - right).abs().mean()

    def make(theta: Tree, alpha: Tree) -> Tensor:
        return functional_call(generator, {**theta, **alpha}, (masks,))

    def fit(phi: Tree, images: Tensor, masks: Tensor) -> Tensor:
        return error(functional_call(segmenter, phi, (images,)), masks)

    return stepped(
        ThreeLevels(
            outer=alpha,
            generator=InnerStep(theta, theta, 0.5, positive(theta, 1)),
            segmenter=InnerStep(phi, phi, 0.5, positive(phi, 2)),
            generator_loss=lambda theta, alpha: error(make(theta, alpha), real),
            synthesise=lambda theta, alpha: (make(theta, alpha) + 0.1 * warped, masks),
            synthetic_loss=fit,
            real_loss=lambda phi: fit(phi, real, masks),
            search_loss=lambda phi: fit(phi, search, masks.flip(-1)),
            gamma=0.8,
        )
    )
