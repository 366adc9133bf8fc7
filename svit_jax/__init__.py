"""Everything that touches JAX: the model, its training, its answers and their scores."""
