"""The mathematics of the three levels: named-tensor arithmetic, inner steps, the hypergradient. Imports torch only."""

from __future__ import annotations

from genseg_monai.multilevel.hypergradient import EPSILON, Estimator, hypergradient
from genseg_monai.multilevel.levels import InnerStep, ThreeLevels, adam_point, adam_preconditioner, assert_disjoint
from genseg_monai.multilevel.reduced import Block, Reduced
from genseg_monai.multilevel.tree import Average, LazyTree, Tree, alone

__all__ = [
    "EPSILON",
    "Average",
    "Block",
    "Estimator",
    "InnerStep",
    "LazyTree",
    "Reduced",
    "ThreeLevels",
    "Tree",
    "adam_point",
    "adam_preconditioner",
    "alone",
    "assert_disjoint",
    "hypergradient",
]
