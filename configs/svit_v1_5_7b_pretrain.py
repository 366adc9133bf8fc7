"""Stage 1 of SVIT-v1.5-7B: the projector alone, on 558K captions.

Start from Vicuna and CLIP with --checkpoint.init=WORKDIR; the projector is made anew.
Words after ":" choose another size or variant (svit_jax/recipes.py).
"""

from ml_collections import ConfigDict

from svit_jax.recipes import recipe


def get_config(argument: str = "") -> ConfigDict:
    return recipe("7b", "pretrain", argument)
