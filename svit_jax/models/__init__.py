"""SVIT-v1.5's architecture: CLIP-style tower, MLP projector, Llama decoder, and their splice.

Axis letters: B batch, T query, S source, N heads, K kv heads, G group, H head dim, D embed,
F feed-forward, V vocab, P patches, M pictures, Y and X pixels, L layers, C vision embed, I images.
"""
