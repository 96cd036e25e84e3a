"""Losses of the generator, the discriminator and the segmenter."""
