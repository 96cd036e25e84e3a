"""Inferers beyond MONAI's own."""
