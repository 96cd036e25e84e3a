"""Stands in for torchvision in MONAI Label's environment.

MONAI Label 0.8.5 imports two functions of it at start, for pictures that none of our models makes. The real package
comes as a CUDA build and does not import beside PyTorch's CPU build.
"""

__version__ = "0.0.0"
