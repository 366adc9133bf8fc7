"""A generated Visual-Genome-like world with pictures and truth, for the demo and the tests."""
