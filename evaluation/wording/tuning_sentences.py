"""All sentences about decisions, as one template for each kind."""

from __future__ import annotations

from typing import Any

from cxr_compare.evaluation.metrics.notes import Note, NoteKind
from cxr_compare.evaluation.wording.templates import Templates

_TEMPLATES = Templates("""
{# --- a decision as a whole --- #}

{% macro chosen_on(system, target, n_images, n_patients, n_positive) -%}
{{ system ~ ", " if system }}{{ target }}: chosen on {{ n_images|counted("validation image") }} of
{{ n_patients|counted("patient") }}, {{ n_positive }} positive
{%- endmacro %}

{% macro reduction(rule, min_score) -%}
image score: {{ rule }}
{%- if min_score %}, boxes from score {{ "%g"|format(min_score) }}{% endif %}
{%- endmacro %}

{% macro boxes(rule, maps) -%}
boxes: {{ "cut from the maps " if maps }}{{ rule }}
{%- endmacro %}

{% macro calibration(method, losses) -%}
probability: {{ {"": "none possible", "none": "the score as it is"}.get(method, method) }}
{%- if losses %} (held-out log loss: {% for name, loss in losses.items() -%}
{{ ", " if not loop.first }}{{ name }} {{ "%.4f"|format(loss) }}
{%- endfor %}){% endif %}
{%- endmacro %}

{% macro no_threshold(policy, reason) -%} {{ policy }}: no threshold ({{ reason }}) {%- endmacro %}

{% macro threshold(policy, threshold, figures) -%}
{{ policy }}: score >= {{ "%.6g"|format(threshold) }} (
{%- for name, value in figures.items() -%}
{{ ", " if not loop.first }}{{ name }} {{ "%.3f"|format(value) }}
{%- endfor %})
{%- endmacro %}

{# --- notes --- #}

{% macro note_validation_absent(system, declared) -%}
{{ system }} has no validation images, so it has only figures that need no threshold
{{- " and figures at declared thresholds" if declared }}.
{%- endmacro %}

{% macro note_not_tuned(system) -%}
{{ system }} was not tuned before; its thresholds were chosen now, on the validation images.
{%- endmacro %}

{% macro note_validation_learned(system, n_learned, n_validation, split) -%}
{{ system }} learned from patients, or from copies, of {{ n_learned }} of the {{ n_validation }}
validation images of split '{{ split }}'. It scores these images more surely than new ones, so its
thresholds and its calibration may not fit new images.
{%- endmacro %}
""")


def sentence(kind: str, /, **values: Any) -> str:
    """Return a sentence about a system's thresholds and rules, from a template of this module.

    Args:
        kind: Name of the template, such as ``chosen_on``.
        **values: Values to fill into the template, by name of its arguments, such as
            ``n_images=4``.

    Returns:
        The sentence, with single spaces and without a line break.

    Example:
        >>> sentence("reduction", rule="max", min_score=None)
        'image score: max'
    """
    return _TEMPLATES.text(kind, **values)


def note(kind: NoteKind, template: str, /, **values: Any) -> Note:
    """Return a note for a report about how thresholds were chosen, with a sentence from a template.

    Args:
        kind: Kind of the note, such as ``not_tuned``; reports decide by it where the note is
            printed.
        template: Name of the template in this module, without its beginning ``note_``.
        **values: Values to fill into the template, by name of its arguments, such as
            ``system="A"``. The note also stores them.

    Returns:
        The note: kind, sentence and values.

    Example:
        >>> note("not_tuned", "not_tuned", system="A").values
        {'system': 'A'}
    """
    return Note(kind, _TEMPLATES.text(f"note_{template}", **values), values)
