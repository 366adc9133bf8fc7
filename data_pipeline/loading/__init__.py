"""The plan (which dialogues make which row, in which order), the Grain pipeline, and Batch."""
