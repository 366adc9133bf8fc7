"""The benchmarks by name."""

import difflib

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.benchmark import Benchmark
from svit_jax.evaluation.gqa import GQA
from svit_jax.evaluation.grounding import Grounding
from svit_jax.evaluation.llava_bench import LLaVABench
from svit_jax.evaluation.mmbench import LETTER_ANSWER_CN, MMBench
from svit_jax.evaluation.mme import MME
from svit_jax.evaluation.mmmu import MMMU
from svit_jax.evaluation.mmvet import MMVet
from svit_jax.evaluation.pope import POPE
from svit_jax.evaluation.scienceqa import ScienceQA
from svit_jax.evaluation.seedbench import SEEDBench
from svit_jax.evaluation.textvqa import TextVQA
from svit_jax.evaluation.vizwiz import VizWiz
from svit_jax.evaluation.vqav2 import VQAv2

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        VQAv2(),
        GQA(),
        MME(),
        POPE(),
        Grounding(),
        ScienceQA(),
        SEEDBench(),
        MMBench(),
        MMBench("mmbench_cn", "mmbench_dev_cn_20231003.tsv", LETTER_ANSWER_CN),
        TextVQA(),
        VizWiz(),
        MMMU(),
        MMVet(),
        LLaVABench(),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises UserError that lists the known ones."""
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"benchmark {name!r} is unknown{hint}; choose from: {', '.join(BENCHMARKS)}."
        )
    return BENCHMARKS[name]
