"""The parts of `genseg study`: arms, cells, ledger, budget, the work itself and its results."""
