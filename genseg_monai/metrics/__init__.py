"""Scores of predicted masks and of synthetic images."""

from __future__ import annotations

from genseg_monai.metrics.cases import CaseScore, Empty, score_case, summarise, write_scores

__all__ = ["CaseScore", "Empty", "score_case", "summarise", "write_scores"]
