"""Meshes of a shortlist run for real, on all hosts of a slice: measured beside predicted.

The rest of `tpu_scripts` needs nothing but Python; this runs where svit-jax is installed.
"""
