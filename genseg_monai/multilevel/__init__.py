"""The mathematics of the three levels; imports torch only."""
