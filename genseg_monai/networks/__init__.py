"""Generator, discriminator and segmenters, for 2D and 3D."""
