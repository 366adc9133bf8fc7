"""Which instructions a model is trained on: the core subset."""
