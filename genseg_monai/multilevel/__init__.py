"""The mathematics of the three levels: named-tensor arithmetic, inner steps, the hypergradient. Imports torch only."""

from __future__ import annotations

from genseg_monai.multilevel.hypergradient import EPSILON, Estimator, hypergradient
from genseg_monai.multilevel.levels import InnerStep, ThreeLevels, adam_preconditioner, assert_disjoint
from genseg_monai.multilevel.tree import Tree

__all__ = [
    "EPSILON",
    "Estimator",
    "InnerStep",
    "ThreeLevels",
    "Tree",
    "adam_preconditioner",
    "assert_disjoint",
    "hypergradient",
]
