"""Runs on Cloud TPU, from a laptop with gcloud: start, watch, resume, stop, the bill."""
