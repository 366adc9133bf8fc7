"""`svit serve`: a checkpoint behind the OpenAI chat-completions API."""

import argparse
from typing import Any

from svit_jax.cli.job import MESH_HELP, add_int8, add_job


def serve_job(jobs: Any) -> None:
    job = add_job(
        jobs,
        "serve",
        _run,
        "serve a checkpoint over HTTP, as the OpenAI chat-completions API",
        "svit serve --checkpoint demo_run/finetune --port 8000",
    )
    job.add_argument("--checkpoint", required=True, help="workdir of a training run")
    job.add_argument("--model-name", help="what requests call it (the workdir's name)")
    job.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a LoRA run of the checkpoint's model that requests may name; once for each",
    )
    job.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1)")
    job.add_argument("--port", type=int, default=8000, help="0: a free one (8000)")
    job.add_argument("--mesh", default="", help=MESH_HELP)
    job.add_argument("--dtype", default="float32", help="what is computed in (float32)")
    add_int8(job)
    engine = job.add_argument_group("engine")
    engine.add_argument("--rows", type=int, default=8, help="requests that decode at once (8)")
    engine.add_argument("--max-waiting", type=int, default=64, help="that wait; more get 429 (64)")
    engine.add_argument("--max-length", type=int, help="tokens of prompt and answer (4096)")
    engine.add_argument(
        "--picture-cache-bytes",
        type=int,
        default=512 * 2**20,
        metavar="BYTES",
        help="for the features of pictures that were seen before (512 MiB)",
    )
    engine.add_argument(
        "--warm-up",
        type=int,
        default=256,
        metavar="TOKENS",
        help="of text, and a picture: programs for such prompts are compiled before the server is "
        "ready (256; 0: each when it is first needed)",
    )
    access = job.add_argument_group("access")
    access.add_argument(
        "--api-keys-file",
        metavar="FILE",
        help="keys, a line each (else those in the variable SVIT_API_KEYS; with none, all may ask)",
    )
    access.add_argument(
        "--allow-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names that the server may be called by (on loopback its own alone; else any)",
    )
    access.add_argument(
        "--allow-url-host",
        nargs="+",
        default=[],
        metavar="HOST[:PORT]",
        help="public hosts that pictures may be fetched from (none)",
    )
    access.add_argument(
        "--behind-proxy", action="store_true", help="a proxy on this machine says who asks"
    )
    access.add_argument(
        "--log-contents", action="store_true", help="write questions and answers into the log"
    )
    limits = job.add_argument_group("limits of one request")
    limits.add_argument("--body-bytes", type=int, default=16 * 2**20, help="of its body (16 MiB)")
    limits.add_argument("--body-seconds", type=float, default=30.0, help="to send it (30)")
    limits.add_argument("--pictures", type=int, default=8, help="in all its messages (8)")
    limits.add_argument(
        "--picture-pixels",
        type=int,
        default=36_000_000,
        help="of the square of a picture's long side (36 million)",
    )
    limits.add_argument("--default-tokens", type=int, default=512, help="where it asks for none")
    limits.add_argument("--new-tokens", type=int, default=2048, help="that it may ask for (2048)")
    limits.add_argument(
        "--send-seconds", type=float, default=30.0, help="a reader that takes nothing is dropped"
    )
    limits.add_argument(
        "--drain-seconds", type=float, default=30.0, help="to finish in after SIGTERM (30)"
    )
    limits.add_argument("--decoders", type=int, default=4, help="threads that decode pictures (4)")


def _run(options: argparse.Namespace) -> None:
    import dataclasses

    from data_pipeline.common.errors import UserError
    from svit_jax.api import load
    from svit_jax.checkpoints.manager import locate_checkpoint
    from svit_jax.inference.continuous import ContinuousEngine
    from svit_jax.sharding.mesh import parse_mesh

    try:
        from svit_jax.serving.run import listen, serve
        from svit_jax.serving.settings import Limits, ServerSettings, make_access, read_adapters
        from svit_jax.serving.telemetry import log_to_stderr
    except ModuleNotFoundError as error:
        raise UserError(f"svit serve needs {error.name}: pip install 'svit-jax[serve]'.") from None

    limits = Limits(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Limits)})
    access = make_access(
        options.host, options.api_keys_file, options.allow_host, options.allow_url_host
    )
    _, workdir = locate_checkpoint(options.checkpoint)
    name = options.model_name or workdir.absolute().name
    adapters = read_adapters(options.adapter, name)
    settings = ServerSettings(
        name,
        options.host,
        options.port,
        limits,
        access,
        options.decoders,
        options.behind_proxy,
        options.log_contents,
    )
    # Loading takes its time: what is wrong with the address is said before.
    listening = listen(settings)
    log_to_stderr()
    assistant = load(
        options.checkpoint,
        dtype=options.dtype,
        mesh=parse_mesh(options.mesh),
        int8=options.int8,
        adapters=adapters,
    )
    engine = ContinuousEngine(
        assistant.engine,
        options.rows,
        options.max_length,
        max_waiting=options.max_waiting,
        picture_bytes=options.picture_cache_bytes,
    )
    serve(assistant, engine, settings, options.max_waiting, listening, options.warm_up)
