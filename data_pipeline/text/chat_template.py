"""A conversation template as the Jinja text that transformers, vLLM and SGLang read.

So that a checkpoint that was taken out is asked as it was trained, wherever it is served.
"""

import json

from data_pipeline.text.templates import Template

CHAT_TEMPLATE_FILE = "chat_template.jinja"

# Pictures come first, each on a line of its own, as `place_images` has it.
_JINJA = """\
{%- macro text_of(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}
{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro asked(content) -%}
{%- set pictures = [] if content is string
    else content | selectattr('type', 'in', ['image', 'image_url']) | list -%}
{%- if pictures -%}
{{- ('<image>\\n' * (pictures | length) + text_of(content) | trim) | trim -}}
{%- else -%}{{- text_of(content) -}}{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
{{- text_of(messages[0]['content']) + ' ' -}}
{%- else -%}
{{- SYSTEM + ' ' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- HUMAN + ': ' + asked(message['content']) -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' ' + ASSISTANT + ': ' + text_of(message['content']) + eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' ' + ASSISTANT + ':' -}}{%- endif -%}
"""


def chat_template(template: Template) -> str | None:
    """The Jinja text that writes what the template's prompts are; None for captions, which answer
    no question."""
    if template.style == "caption":
        return None
    text = _JINJA
    for name, value in (
        ("SYSTEM", template.system),
        ("HUMAN", template.human),
        ("ASSISTANT", template.assistant),
    ):
        text = text.replace(name, json.dumps(value))
    return text
