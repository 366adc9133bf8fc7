"""`svit <job>`: thin; each job's code lives in its room, and only the chosen one is imported."""

from svit_jax.cli.main import main, make_parser

__all__ = ["main", "make_parser"]
