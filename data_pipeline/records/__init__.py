"""Instructions and pictures -> ArrayRecord shards that are also a valid TFDS dataset, and back."""
