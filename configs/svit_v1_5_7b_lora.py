"""Stage 2 of SVIT-v1.5-7B with LoRA, on SVIT-mix-665K.

Start from stage 1 with --checkpoint.init=WORKDIR; LoRA's parameters are made anew.
Words after ":" choose another size or variant (svit_jax/recipes.py).
"""

from ml_collections import ConfigDict

from svit_jax.recipes import recipe


def get_config(argument: str = "") -> ConfigDict:
    return recipe("7b", "lora", argument)
