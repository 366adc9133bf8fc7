"""transformers' logits processors restated in NumPy, for one row, from their documentation."""

import numpy as np


def processed(
    logits: np.ndarray,
    seen: list[int],
    repetition_penalty: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> np.ndarray:
    """The log-probabilities to draw from: -inf where a token is left out."""
    scores = logits.astype(np.float64).copy()
    for token in set(seen):
        scores[token] *= repetition_penalty if scores[token] < 0 else 1 / repetition_penalty
    scores /= temperature
    likeliest_first = sorted(range(len(scores)), key=lambda token: -scores[token])
    if top_k:
        scores[likeliest_first[top_k:]] = -np.inf
    weights = np.exp(scores - scores.max())
    shares = weights / weights.sum()
    kept, mass = [], 0.0
    for token in likeliest_first:
        kept.append(token)
        mass += shares[token]
        if mass >= top_p:
            break
    scores[[token for token in range(len(scores)) if token not in kept]] = -np.inf
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()
