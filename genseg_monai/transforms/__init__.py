"""Transforms of images and masks: warps, intensity changes, the working grid."""
