"""A large model at an OpenAI-compatible endpoint, as `draft_concepts` asks it."""

from data_pipeline.common.errors import UserError
from data_pipeline.recipe.concepts import Ask


def openai_ask(model: str, base_url: str | None = None) -> Ask:
    """A function that sends a prompt to `model` and returns its answer.

    The key comes from OPENAI_API_KEY, the endpoint from `base_url` or OPENAI_BASE_URL. The client
    repeats calls that fail for a moment. Raises UserError where no answer can be had.
    """
    try:
        import openai
    except ImportError:
        raise UserError(
            "the openai client is not installed; install it with: pip install 'svit-jax[generate]'."
        ) from None
    try:
        client = openai.OpenAI(base_url=base_url)
    except openai.OpenAIError as error:
        raise UserError(f"the openai client cannot start: {error}") from None

    def ask(prompt: str) -> str:
        try:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": prompt}]
            )
        except openai.OpenAIError as error:
            raise UserError(
                f"model {model} at {client.base_url} did not answer ({error}); check --model, "
                "--base-url and OPENAI_API_KEY."
            ) from None
        return answer.choices[0].message.content or ""

    return ask
