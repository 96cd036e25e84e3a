"""Find, check, split, read and describe the cases of a data set."""
