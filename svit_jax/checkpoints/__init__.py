"""Checkpoints on disk: Orbax, atomic, restored onto whatever mesh the run has now."""
