"""Everything before the first device array: annotations become batches of NumPy arrays.

Never imports jax.
"""
