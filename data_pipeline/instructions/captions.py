"""Captions become rows for the first training stage, in the form of LLaVA's LCS-558K."""

import random

from data_pipeline.annotations.scene import Scene, read_scenes
from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.json_stream import json_list_writer
from data_pipeline.common.progress import progress
from data_pipeline.generation.wording import joined, sentence
from data_pipeline.instructions.rows import image_path, llava_row, quarantine_beside

QUESTION = "Describe the image briefly."
REGIONS_IN_A_CAPTION = 3


def caption_rows(
    scenes_path: PathLike,
    out: PathLike,
    captions_per_picture: int = 1,
    seed: int = 0,
    prefix: str = "",
) -> int:
    """Writes up to `captions_per_picture` rows for each scene and returns how many.

    A row asks for a brief description and answers with a caption; a scene without captions gets
    ones made from a few of its regions. Scenes without either are listed in
    `<out's stem>.quarantine.jsonl`. Ids are `caption_<image id>_<number>`.
    """
    if captions_per_picture < 1:
        raise UserError(f"captions_per_picture is {captions_per_picture}, expected 1 or more.")
    quarantine = quarantine_beside(out)
    count = 0
    with json_list_writer(out) as write:
        for scene in progress(read_scenes(scenes_path), "captions", unit="scene"):
            captions = _captions(scene, captions_per_picture, seed)
            if not captions:
                quarantine.add(str(scene.image_id), "no_text: the scene has no captions or regions")
            for number, caption in enumerate(captions):
                turns = [Turn("human", QUESTION), Turn("gpt", caption)]
                row_id = f"caption_{scene.image_id}_{number}"
                write(llava_row(row_id, image_path(scene, prefix), turns))
                count += 1
    quarantine.save()
    return count


def _captions(scene: Scene, most: int, seed: int) -> list[str]:
    rng = random.Random(f"{seed}/{scene.image_id}/captions")
    captions = list(dict.fromkeys(sentence(text) for text in scene.captions if text.strip()))
    if captions:
        return rng.sample(captions, min(most, len(captions)))
    phrases = list(dict.fromkeys(region.phrase.strip(" .") for region in scene.regions))
    phrases = [phrase for phrase in phrases if phrase]
    if not phrases:
        return []
    drawn = [
        sentence(joined(rng.sample(phrases, min(REGIONS_IN_A_CAPTION, len(phrases)))))
        for _ in range(most)
    ]
    return list(dict.fromkeys(drawn))
