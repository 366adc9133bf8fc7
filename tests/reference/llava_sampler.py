"""LLaVA's sampler of stage 2 (group_by_modality_length), written apart from ours, from the rules:

- a sample's length is its number of words, below zero for one without a picture;
- each modality is shuffled, cut into megabatches of a global batch, and each of these sorted by
  length, longest first, then dealt to the devices, the next sample always to whoever holds least
  and has room; a megabatch that devices don't divide is dealt in turns;
- then the last megabatch of either modality is set aside, the others are shuffled, and what was set
  aside comes at the end, in the order of the dataset.
"""

from collections.abc import Callable


def reference_order(
    lengths: list[int], per_device: int, devices: int, randperm: Callable[[int], list[int]]
) -> list[int]:
    """`randperm` is asked in the reference's order."""
    megabatch = per_device * devices
    if min(lengths) > 0 or max(lengths) < 0:
        return shuffled(dict(enumerate(lengths)), megabatch, devices, randperm)
    pictured = {i: n for i, n in enumerate(lengths) if n > 0}
    text = {i: -n for i, n in enumerate(lengths) if n < 0}
    batches, aside = [], []
    for samples in (pictured, text):
        order = shuffled(samples, megabatch, devices, randperm)
        while len(order) > megabatch:
            batches.append(order[:megabatch])
            order = order[megabatch:]
        aside.extend(order)
    result = []
    for place in randperm(len(batches)):
        result.extend(batches[place])
    return result + sorted(aside)


def shuffled(samples, megabatch, devices, randperm):
    keys = list(samples)
    queue = [keys[place] for place in randperm(len(keys))]
    result = []
    while queue:
        batch, queue = queue[:megabatch], queue[megabatch:]
        batch.sort(key=lambda i: -samples[i])
        piles = {device: [] for device in range(devices)}
        for turn, sample in enumerate(batch):
            if len(batch) % devices:
                device = turn % devices
            else:
                room = [d for d in piles if len(piles[d]) < len(batch) // devices]
                device = min(room, key=lambda d: (sum(samples[i] for i in piles[d]), d))
            piles[device].append(sample)
        for pile in piles.values():
            result.extend(pile)
    return result
