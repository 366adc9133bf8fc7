"""Many plans of one training step: the grid, its cache, the search for the best, tables.

It knows no config and no compiler: `cli` hands in what checks a candidate and what plans it."""
