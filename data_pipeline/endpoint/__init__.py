"""Calls to a model behind an endpoint: many at a time, retried, paced, budgeted, journalled."""
