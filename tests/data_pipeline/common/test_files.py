"""What is written as JSON is read by readers that know no NaN."""

import json
import math

from data_pipeline.common.files import strict_json


def test_numbers_that_json_lacks_are_strings_that_float_reads():
    value = {"a": [math.nan, (math.inf, -math.inf)], "b": {"c": 1.5, "d": None, "e": "NaN of"}}
    strict = strict_json(value)
    text = json.dumps(strict, allow_nan=False)
    assert json.loads(text) == {
        "a": ["NaN", ["Infinity", "-Infinity"]],
        "b": {"c": 1.5, "d": None, "e": "NaN of"},
    }
    assert math.isnan(float("NaN")) and float("-Infinity") == -math.inf
