"""Arithmetic on named tensors."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.multilevel import tree as T

A = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
B = {"w": torch.tensor([0.5, -1.0]), "b": torch.tensor([[2.0]])}


def test_add_scaled_is_elementwise_and_keeps_missing_names():
    total = T.add_scaled(A, {"w": B["w"]}, 2.0)
    torch.testing.assert_close(total["w"], torch.tensor([2.0, 0.0]))
    assert total["b"] is A["b"]


def test_dot_and_norm_agree_with_one_long_vector():
    left, right = (torch.cat([v.flatten() for v in tree.values()]) for tree in (A, B))
    torch.testing.assert_close(T.dot(A, B), left @ right)
    torch.testing.assert_close(T.norm(A), left.norm())


def test_multiply_by_none_is_the_identity():
    assert T.multiply(A, None) == A
    torch.testing.assert_close(T.multiply(A, B)["b"], torch.tensor([[6.0]]))


def test_gradient_is_zero_where_nothing_depends():
    tree = T.detached(A, requires_grad=True)
    found = T.gradient((tree["w"] ** 2).sum(), tree)
    torch.testing.assert_close(found["w"], 2 * A["w"])
    torch.testing.assert_close(found["b"], torch.zeros(1, 1))
    torch.testing.assert_close(T.gradient(torch.tensor(1.0), tree)["w"], torch.zeros(2))


def test_gradient_with_a_cotangent_is_a_vector_jacobian_product():
    tree = T.detached(A, requires_grad=True)
    found = T.gradient(tree["w"] * 3, tree, cotangent=torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(found["w"], torch.tensor([3.0, 30.0]))


def test_detached_shares_storage_but_no_graph():
    leaf = T.detached(A, requires_grad=True)
    assert leaf["w"].data_ptr() == A["w"].data_ptr()
    assert leaf["w"].is_leaf
    assert not A["w"].requires_grad


def test_scale_and_zeros():
    torch.testing.assert_close(T.scale(A, -2.0)["w"], torch.tensor([-2.0, -4.0]))
    assert all(bool((value == 0).all()) for value in T.zeros_like(A).values())


def test_names_must_exist_on_both_sides():
    with pytest.raises(KeyError, match="b"):
        T.dot(A, {"w": B["w"]})
