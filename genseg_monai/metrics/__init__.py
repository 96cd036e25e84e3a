"""Scores of predicted masks and of synthetic images."""
