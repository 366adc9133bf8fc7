import pytest

from data_pipeline.common.dialogue import Dialogue
from data_pipeline.text.corpus import spread


@pytest.mark.parametrize(
    "total,most,expected",
    [
        (10, 3, [0, 4, 8]),
        (10, 5, [0, 2, 4, 6, 8]),
        (10, 9, [0, 2, 4, 6, 8]),
        (10, 10, list(range(10))),
        (10, 99, list(range(10))),
        (0, 5, []),
    ],
)
def test_dialogues_are_spread_evenly_within_the_limit(total, most, expected):
    dialogues = (Dialogue(str(number), ()) for number in range(total))
    assert [int(dialogue.id) for dialogue in spread(dialogues, total, most)] == expected
