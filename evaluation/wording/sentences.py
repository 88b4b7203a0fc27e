"""Templates of all sentences about a comparison, one for each kind of statement and of note.

`evaluation.verdict.verdict` and `evaluation.verdict.cautions` decide which kind applies and with
which values. The wording is in this module only.
"""

from __future__ import annotations

from typing import Any

from cxr_compare.evaluation.metrics.notes import Note, NoteKind
from cxr_compare.evaluation.wording.templates import Templates

_TEMPLATES = Templates("""
{# ---------------------------------------------------------------- parts of several sentences #}

{% macro level(share) -%} {{ "%.3g"|format(100 * share) }} % {%- endmacro %}

{% macro at(threshold) -%}
{%- if threshold.policy %} at the threshold for {{ threshold.policy|policy }}{% endif -%}
{%- if threshold.chosen_on %} (chosen on {{ threshold.chosen_on|listing }} positive validation
{{ threshold.unit }}){% endif -%}
{%- endmacro %}

{% macro figure(names, threshold) -%} {{ names|listing }}{{ at(threshold) }} {%- endmacro %}

{% macro gap(difference, label="difference") -%}
{{ label }} {{ difference.estimate|number }}
{%- if difference.bounded -%}
, {{ level(difference.level) }} interval {{ span(difference.ci_low, difference.ci_high) }}
{%- elif difference.reason -%} ; {{ difference.reason }}
{%- elif difference.comparisons == 1 -%} ; no interval
{%- else -%} ; no interval for one of {{ difference.comparisons }} comparisons
{%- endif -%}
{%- endmacro %}

{% macro figures_and_gaps(rows, common_level) -%}
{% for row in rows -%}
{{ "; " if not loop.first }}{{ row.figure }} {{ row.pair[0]|number }} and
{{ row.pair[1]|number }} (
{%- if common_level is not none and row.difference.bounded -%}
difference {{ row.difference.estimate|number }},
{{ span(row.difference.ci_low, row.difference.ci_high) }}
{%- else -%} {{ gap(row.difference) }} {%- endif -%}
),
{%- if row.leader %} higher for {{ row.leader }}
{%- elif row.standing == "same" %} equal here, not shown to differ
{%- elif row.standing == "open" %} not shown to differ
{%- else %} no claim
{%- endif -%}
{%- endfor -%}
{%- if common_level is not none %} ({{ level(common_level) }} intervals){% endif -%}
{%- endmacro %}

{# ------------------------------------------------------------------------- the headline #}

{% macro opening(n_images, unit, n_synthetic, all_synthetic, seeds, same_seeds) -%}
{%- if n_synthetic and all_synthetic -%}
On {{ "{:,}".format(n_images) }} synthetic test {{ unit }}
{%- elif n_synthetic -%}
On {{ "{:,}".format(n_images) }} test {{ unit }}, {{ "{:,}".format(n_synthetic) }} of them synthetic
{%- elif n_images -%} On these {{ "{:,}".format(n_images) }} test {{ unit }}
{%- else -%} On this test set
{%- endif -%}
{%- if same_seeds -%}
, over {{ same_seeds.count }} training seeds{{ " each" if same_seeds.several }}
{%- elif seeds -%}
, over {% for name, count in seeds.items() -%}
{{ (" and " if loop.last else ", ") if not loop.first }}{{ count }} training seeds of {{ name }}
{%- endfor -%}
{%- endif -%}
{%- endmacro %}

{% macro chance(systems) -%}
{%- if systems|length == 1 -%} {{ systems[0] }} was not shown to be better than chance by AUROC
{%- elif systems|length == 2 -%} neither system was shown to be better than chance by AUROC
{%- else -%} no system was shown to be better than chance by AUROC
{%- endif -%}
{%- endmacro %}

{% macro undefined(systems, figures, threshold) -%}
no comparison is possible: the {{ figure(figures, threshold) }} of {{ systems|listing }}
{{ "are" if figures|length > 1 else "is" }} undefined
{%- endmacro %}

{% macro single(system, figures, threshold, finding, scores) -%}
the {{ figure(figures, threshold) }} of {{ system }} for {{ finding }}
{{ "were" if figures|length > 1 else "was" }}
{% for score in scores -%}
{{ " and " if not loop.first }}{{ score.estimate|number }}
{%- if score.bounded %} (95 % interval {{ span(score.ci_low, score.ci_high) }}){% endif -%}
{%- endfor -%}
{%- endmacro %}

{% macro pair_higher(leader, other, figures, threshold, finding, values, difference, label) -%}
{{ leader }} had the higher {{ figure(figures, threshold) }} for {{ finding }}:
{{ values[0]|number }}, {{ other }} {{ values[1]|number }}, {{ gap(difference, label) }}
{%- endmacro %}

{% macro pair_equal(systems, figures, threshold, finding, values, difference) -%}
{{ systems|listing }} had the same {{ figure(figures, threshold) }} for {{ finding }}:
{{ values[0]|number }} ({{ gap(difference) }})
{%- endmacro %}

{% macro pair_open(systems, figures, threshold, finding, values, difference) -%}
{{ systems|listing }} were not shown to differ in {{ figure(figures, threshold) }} for
{{ finding }}: {{ values[0]|number }} and {{ values[1]|number }}, {{ gap(difference) }}
{%- endmacro %}

{% macro pair_unknown(systems, figures, threshold, finding, values, difference) -%}
nothing can be claimed of {{ systems|listing }}: {{ figure(figures, threshold) }} for {{ finding }}
{{ values[0]|number }} and {{ values[1]|number }};
{{ difference.reason or "the paired difference has no interval" }}
{%- endmacro %}

{% macro all_equal(systems, figures, threshold, finding, value) -%}
{{ systems|listing }} had the same {{ figure(figures, threshold) }} for {{ finding }}:
{{ value|number }}
{%- endmacro %}

{% macro scored(systems) -%}
{%- set texts = [] -%}
{%- for name, value in systems -%}
{{- texts.append(name ~ " (" ~ value|number ~ ")") or "" -}}
{%- endfor -%}
{{ texts|listing }}
{%- endmacro %}

{% macro ranked(tops, n_systems, figures, threshold, finding, value, comparisons) -%}
{{ tops|listing }} had the {{ "same, " if tops|length > 1 }}highest {{ figure(figures, threshold) }}
of {{ n_systems }} systems for {{ finding }} ({{ value|number }});
{% set texts = [] -%}
{%- for row in comparisons -%}
{%- set who = "it" if tops|length == 1 else row.system -%}
{%- if row.exceeds -%}
{{- texts.append(who ~ " was shown to exceed " ~ scored(row.exceeds)) or "" -}}
{%- endif -%}
{%- if row.open -%}
{{- texts.append(who ~ " was not shown to differ from " ~ scored(row.open)) or "" -}}
{%- endif -%}
{%- endfor -%}
{{ texts|listing }}
{%- endmacro %}

{% macro both_higher(figures, threshold, finding) -%}
{% for name in figures %}{{ " and " if not loop.first }}the higher {{ name }}{% endfor -%}
{{ at(threshold) }} for {{ finding }}
{%- endmacro %}

{% macro both_halves_shown(leader, systems, figures, threshold, finding, rows, common_level) -%}
{{ leader }} had both {{ both_higher(figures, threshold, finding) }} ({{ systems|listing }}):
{{ figures_and_gaps(rows, common_level) }}
{%- endmacro %}

{% macro both_halves_open(systems, figures, threshold, finding, rows, common_level) -%}
neither {{ systems[0] }} nor {{ systems[1] }} was shown to have both
{{ both_higher(figures, threshold, finding) }} ({{ systems|listing }}):
{{ figures_and_gaps(rows, common_level) }}
{%- endmacro %}

{% macro halves_of_several(figures, threshold, finding, ahead, others_open) -%}
{%- if not ahead -%}
no system was shown to have both {{ both_higher(figures, threshold, finding) }} than another
{%- else -%}
shown to have both {{ both_higher(figures, threshold, finding) }}:
{% set texts = [] -%}
{%- for name, losers in ahead.items() -%}
{{- texts.append(name ~ " than " ~ losers|listing) or "" -}}
{%- endfor -%}
{{ texts|listing }}{{ "; no other pair was" if others_open }}
{%- endif -%}
{%- endmacro %}

{# ------------------------------------------------------------------ further conclusions #}

{% macro pair_figure(figure, threshold, systems, values, difference, standing, map_boxes) -%}
{%- if standing in ("first", "second") -%}
{{ figure }}{{ at(threshold) }} was higher for {{ systems[0] }} than for {{ systems[1] }}:
{{ values[0]|number }} and {{ values[1]|number }}, {{ gap(difference) }}.
{%- elif standing == "same" -%}
{{ figure }}{{ at(threshold) }} was {{ values[0]|number }} for {{ systems[0] }} and for
{{ systems[1] }}, not shown to differ ({{ gap(difference) }}).
{%- elif standing == "open" -%}
{{ figure }}{{ at(threshold) }} was not shown to differ: {{ systems[0] }} {{ values[0]|number }},
{{ systems[1] }} {{ values[1]|number }}, {{ gap(difference) }}.
{%- else -%}
{{ figure }}{{ at(threshold) }}: {{ systems[0] }} {{ values[0]|number }}, {{ systems[1] }}
{{ values[1]|number }}, {{ gap(difference) }}; no claim.
{%- endif -%}
{%- if map_boxes %} The boxes of {{ map_boxes|listing }} are cut out of a map, so they are no finer
than its cells.{% endif -%}
{%- endmacro %}

{% macro pair_figures(systems, threshold, rows, common_level) -%}
{{ systems|listing }}{{ at(threshold) }}: {{ figures_and_gaps(rows, common_level) }}.
{%- endmacro %}

{% macro joint(joint, members, figures, threshold, rows, shown) -%}
{{ joint }} {{ "was shown" if shown else "was not shown" }} to have a higher
{{ figure(figures, threshold) }} than each of {{ members|listing }}:
{% for row in rows -%}
{{ "; " if not loop.first }}{{ row.figure ~ " " if figures|length > 1 }}{{ row.value|number }}
against {{ row.of_member|number }} of {{ row.member }} ({{ gap(row.difference) }})
{%- endfor -%}.
{%- endmacro %}

{% macro image_blind(system, places, figure, threshold, values, difference, standing) -%}
{%- set compared -%}
{{ figure }}{{ at(threshold) }} {{ values[0]|number }}, {{ places }} with its scores
{{ values[1]|number }}, {{ gap(difference) }}.
{%- endset -%}
{%- if standing == "first" -%} {{ system }} localises lesions: {{ compared }}
{%- elif standing == "second" -%}
{{ places[:1]|upper ~ places[1:] }} without any look at the image found more lesions than
{{ system }}: {{ compared }}
{%- elif standing == "unknown" -%}
Whether {{ system }} localises lesions is not known: {{ compared }}
{%- else -%} {{ system }} was not shown to localise lesions: {{ compared }}
{%- endif -%}
{%- endmacro %}

{% macro secondary_start() -%}
Secondary finding, which explains but does not confirm:
{%- endmacro %}

{% macro margin(standing, reference, other, figure, margin, difference, contrasts, digits) -%}
{{ figure[:1]|upper ~ figure[1:] }}:
{%- if standing == "unknown" %}
{{ other }} and {{ reference }} cannot be compared with the margin: no interval.
{%- else %}
{{ other }} {{ {
  "equivalent": "is equivalent to " ~ reference ~ " within",
  "non-inferior": "is non-inferior to " ~ reference ~ " by",
  "worse": "is worse than " ~ reference ~ " by more than",
  "open": "was not shown to be non-inferior to " ~ reference ~ " by",
}[standing] }} the margin of {{ margin|number(digits) }}: difference {{ reference }} − {{ other }}
{{ difference.estimate|number(digits) }} ({{ "%.4g"|format(100 * difference.level) }} % interval
{{ difference.ci_low|number(digits) }} to {{ difference.ci_high|number(digits) }}
{{- ", Bonferroni over " ~ contrasts ~ " contrasts" if contrasts > 1 }}).
{%- endif -%}
{%- endmacro %}

{# ----------------------------------------------------------- how far the answer reaches #}

{% macro brief_training(n_runs, n_systems) -%}
{%- if n_runs is none -%} training runs
{%- else -%}
{{ "one training run" if n_runs == 1 else n_runs ~ " training seeds" }}
{{- " each" if n_systems > 1 }}
{%- endif -%}
{%- endmacro %}

{% macro brief_analysis(analysis) -%}
{{ {"protocol_given": "protocol given", "exploratory": "exploratory",
    "untested": "how intervals were made"}[analysis] }}
{%- endmacro %}

{% macro brief_power(reach) -%}
smallest difference that a study of this size can show: {{ reach|number }}
{%- endmacro %}

{% macro one_run_each(n_systems) -%}
The answer is about {{ {1: "this trained model", 2: "these two trained models"}.get(n_systems,
"these " ~ n_systems ~ " trained models") }}, one training run (seed){{ " each" if n_systems > 1 }}:
another run of the same recipe may differ.
{%- endmacro %}

{% macro one_run_of(systems) -%}
{{ systems|listing }} {{ "was" if systems|length == 1 else "were each" }} trained once: the answer
is about {{ "that trained model" if systems|length == 1 else "those trained models" }}, and another
run may differ.
{%- endmacro %}

{% macro several_runs(seeds) -%}
{% set texts = [] -%}
{%- for name, count in seeds.items() -%}
{{- texts.append(name ~ " (" ~ count ~ " training seeds)") or "" -}}
{%- endfor -%}
For {{ texts|listing }} the answer is about the recipe: intervals include the choice of seeds and
of patients.
{%- endmacro %}

{% macro unknown_runs(systems) -%}
The number of training runs behind {{ systems|listing }} is unknown; another run may differ.
{%- endmacro %}

{% macro same_training(system, original) -%}
{{ system }} and {{ original }} come from one training run: they differ only in how it predicts,
such as by an export or with test-time views.
{%- endmacro %}

{% macro unequal_conditions(conditions) -%}
{% set parts = [] -%}
{%- for condition, values in conditions.items() -%}
{%- set texts = [] -%}
{%- for name, value in values.items() %}{{ texts.append(name ~ ": " ~ value) or "" }}{% endfor -%}
{{- parts.append(condition ~ " (" ~ texts|join(", ") ~ ")") or "" }}
{%- endfor -%}
Trainings differed in {{ parts|listing }}: a difference between these systems is one of their whole
recipes, not of detector against classifier alone.
{%- endmacro %}

{% macro exploratory() -%}
Exploratory: no protocol fixed the question beforehand.
{%- endmacro %}

{% macro protocol_given(figures, threshold, margin, subgroups) -%}
Protocol given: primary figure {{ figure(figures, threshold) }}
{%- if margin is not none %}, margin {{ margin|number }}{% endif -%}
{%- if subgroups %}, subgroups {{ subgroups|listing }}{% endif -%}
.
{%- endmacro %}

{% macro widened(families) -%}
{% for family, size in families.items() -%}
{{ " and the " if not loop.first else "The " }}
{{- {"answer": "answer", "findings": "findings below"}[family] }} ({{ size }} comparisons)
{%- endfor %}
{%- set verb = "use" if families|length > 1 or "findings" in families else "uses" %}
{{ verb }} intervals that Holm's method widens for several comparisons; tables give the interval of
each difference alone.
{%- endmacro %}

{% macro threshold_uncertainty() -%}
Intervals of figures at a threshold include the uncertainty of choosing that threshold.
{%- endmacro %}

{% macro secondary_findings() -%}
Findings marked as secondary explain the answer. The protocol did not fix them, so they confirm
nothing.
{%- endmacro %}

{% macro power(figure, threshold, reaches, level) -%}
For planning: by the variance observed here, a next study with such a test set would show a true
difference in {{ figure }}{{ at(threshold) }} with 80 % power if it is at least
{% for other, reach in reaches.items() -%}
{{ " and " if not loop.first }}{{ reach.value|number }}{{ " between " ~ reach.pair|listing if
reach.pair }}
{%- endfor %} (two-sided {{ "%.3g"|format(100 * level) }} %, by patient). This does not make the
answer above more or less certain, which its intervals say.
{%- endmacro %}

{# --------------------------------------------------------------- what may make it wrong #}

{% macro note_audit(error) -%}
The audit of this data set found an error: {{ error }}.
{%- endmacro %}

{% macro note_no_audit() -%}
Whether a patient is in both training and test data was not checked (run cxr check).
{%- endmacro %}

{% macro with_intervals(systems) -%}
{%- set texts = [] -%}
{%- for name, score in systems.items() -%}
{{- texts.append(name ~ " (" ~ score.estimate|number ~ ", 95 % interval "
   ~ span(score.ci_low, score.ci_high) ~ ")") or "" -}}
{%- endfor -%}
{{ texts|listing }}
{%- endmacro %}

{% macro note_chance(systems) -%}
By AUROC, {{ with_intervals(systems) }} {{ "was" if systems|length == 1 else "were" }} not shown to
be better than chance (0.5).
{%- endmacro %}

{% macro note_no_box_hits(name, ratio) -%}
No box of {{ name }} matches a true box (AP50 is 0). {% if ratio -%}
Its boxes reach {{ "%.3g"|format(ratio) }} times as far as the true boxes: they are probably in
px of a resized image.
{%- else -%}
Draw some of them: do they belong to these images, and are they in px of the original images?
{%- endif %}
{%- endmacro %}

{% macro note_below_chance(systems) -%}
By AUROC, {{ with_intervals(systems) }} {{ "was" if systems|length == 1 else "were" }} worse than
chance (0.5).
{%- endmacro %}

{% macro note_image_blind(role, n_boxes, enough, point, in_px, counts) -%}
Image-blind baseline of each system: the best constant point
{%- if in_px %} (x {{ "%.0f"|format(point[0]) }}, y {{ "%.0f"|format(point[1]) }} px: the sizes of
images are unknown)
{%- else %} (at {{ "%.2f"|format(point[0]) }} of the width and {{ "%.2f"|format(point[1]) }} of the
height)
{%- endif %} and the best constant boxes (
{%- for name, count in counts.items() -%}
{{ ", " if not loop.first }}{{ name }}: {{ count }}
{%- endfor %} an image) with its own image scores, learned on {{ "{:,}".format(n_boxes) }}
{{ {"val": "validation", "train": "training"}[role] }} boxes
{%- if role == "train" %}, because there are fewer than {{ enough }} validation boxes{% endif -%}
. A localisation figure says something only beside it.
{%- endmacro %}

{% macro note_image_blind_absent() -%}
There is no image-blind baseline, because no validation or training image has a box to learn
constant positions from. So it is not known whether the systems localise lesions better than
positions that do not depend on the image.
{%- endmacro %}

{% macro note_shortcut(fact, auroc, systems) -%}
The label can be predicted without the lungs, from {{ fact }}, with AUROC {{ auroc|number }}
in 5-fold cross-validation by patient. Compared with this prediction on the same images,
{% set texts = [] -%}
{%- for name, row in systems.items() -%}
{%- set ends = span(row.ci_low, row.ci_high) -%}
{%- set interval = "95 % interval " ~ ends if row.bounded else "not tested" -%}
{{- texts.append(name ~ " (" ~ row.auroc|number ~ ", difference " ~ row.difference|number ~ ", "
   ~ interval ~ ")") or "" -}}
{%- endfor -%}
{{ texts|listing }} {{ "was" if systems|length == 1 else "were" }} not shown to be better. Each of
these AUROCs compares only images of the same fold, so it can differ from the system's AUROC
elsewhere.
{%- endmacro %}

{% macro note_elsewhere(groups, data_set) -%}
{% for group in groups -%}
{{ "; " if not loop.first }}{{ group.systems|listing }}
{{ "was" if group.systems|length == 1 else "were" }} trained on data set
{% set texts = [] -%}
{%- for name in group.data_sets -%}
{{- texts.append("“" ~ name ~ "”" ~ (" (other images)" if name == data_set else "")) or "" -}}
{%- endfor -%}
{{ texts|listing }}
{%- endfor -%}
; evaluated on “{{ data_set }}”.
{%- endmacro %}

{% macro note_synthetic() -%}
Synthetic images: the figures say nothing about patients.
{%- endmacro %}

{% macro note_scores_are_labels(system) -%}
The scores of {{ system }} equal the labels of the test images: is the column of labels read as the
scores?
{%- endmacro %}

{% macro note_ranks_only(system, low, high) -%}
The scores of {{ system }} lie between {{ low|number }} and {{ high|number }}: they are no
probabilities, and only their ranks count. It has no calibration.
{%- endmacro %}

{% macro note_decisions(system) -%}
All scores of {{ system }} are 0 or 1: they are decisions, not probabilities. Its AUROC and average
precision are then lower than those of its probabilities, and differences to other systems are not
fair to it.
{%- endmacro %}

{% macro note_confidence(system) -%}
No score of {{ system }} is below 0.5: if they are the confidence of the predicted class, all its
figures are wrong. Give the probability of the finding, 1 - confidence where the class is another.
{%- endmacro %}

{% macro note_equal_scores(systems) -%}
{{ systems|listing }} have the same score on every test image: are they one file?
{%- endmacro %}

{% macro note_other_scale(system, validation, test) -%}
The scores of {{ system }} have another scale on test than on validation images (median
{{ test|number }} and {{ validation|number }}), in both classes: thresholds and calibration from
validation do not fit.
{%- endmacro %}

{% macro note_turned_scores(system, auroc) -%}
On validation images the scores of {{ system }} are higher for negative than for positive images
(AUROC {{ auroc|number }}): are they turned round there? Its thresholds and calibration are then
wrong.
{%- endmacro %}

{% macro note_few_patients(classes, least) -%}
{% for row in classes if row.few -%}
The {{ row.n_images|counted(row.name ~ " image") }} {{ "is" if row.n_images == 1 else "are" }} of
{{ row.n_patients|counted("patient") }}
{%- if row.n_images > row.n_patients %}, and say as much as
{{ row.n_images|counted("image") }} of {{ "%.1f"|format(row.effective) }} patients with one image
each would{% endif -%}
.
{% endfor -%}
{%- if classes|selectattr("few")|list %}
With fewer than {{ least }} patients of a class, one patient more or less may change the answer.
{%- endif %}
{% for row in classes if row.largest -%}
One patient has {{ "{:,}".format(row.largest) }} of the {{ "{:,}".format(row.n_images) }}
{{ row.name }} images ({{ "%.0f"|format(100 * row.largest / row.n_images) }} %).
{% endfor -%}
{%- endmacro %}

{% macro note_exposure(subject, system, n_seen, n_images, n_unknown, n_patients_seen, n_patients,
source, unseen, on_all, difference, interval, reason) -%}
{{ subject }} saw {{ "%.1f"|format(100 * n_seen / n_images) }} % of these test images
({{ "{:,}".format(n_seen) }} of {{ "{:,}".format(n_images) }}), unlabelled, and images of
{{ "{:,}".format(n_patients_seen) }} of {{ "{:,}".format(n_patients) }} patients (source:
{{ source }}).
{%- if n_unknown %}
Of {{ n_unknown|counted("more image") }} it is not known.
{%- endif -%}
{%- if n_seen and difference is not none %}
Without them the AUROC of {{ system }} is {{ unseen|number }} instead of {{ on_all|number }}
(difference {{ difference|number }}
{%- if interval %}, 95 % interval {{ span(interval[0], interval[1]) }}{% endif -%}
{%- if reason %}; {{ reason }}{% endif -%}
).
{%- elif n_seen %}
The AUROC of {{ system }} without them is undefined: {{ reason }}.
{%- endif -%}
{%- endmacro %}

{# ------------------------------------------------------- what was evaluated, and how often #}

{% macro note_unknown_labels(n_images, finding, n_uncertain) -%}
{{ n_images|counted("test image", "have") }} no known label for {{ finding }}
{%- if n_uncertain %}, {{ "{:,}".format(n_uncertain) }} of them because readers were
uncertain{% endif -%}
.
{%- endmacro %}

{% macro note_common_images(n_images, ran) -%}
Evaluated on the {{ n_images }} test images that all systems ran on (
{%- for name, count in ran.items() -%}
{{ ", " if not loop.first }}{{ name }} ran on {{ count }}
{%- endfor %}).
{%- endmacro %}

{% macro note_not_evaluated(n_images, n_labelled) -%}
{{ n_images }} of {{ n_labelled|counted("test image") }} are not evaluated.
{%- endmacro %}

{# A report without patients rewords "patient", except in two phrases that this one uses. #}
{% macro note_unknown_patients(n_images, all_images) -%}
Intervals are by image, because
{% if all_images %}no patient is known
{%- else %}the patients of {{ n_images|counted("image") }} are unknown
{%- endif -%}
: they are too narrow where patients have several images.
{%- endmacro %}

{% macro note_shared_patients(counts) -%}
Patients have images in more than one role:
{% for role, count in counts|dictsort %}
{{- "" if loop.first else " and " }}{{ count|counted("patient") }} of test images also in
{{ "validation" if role == "val" else "training" }}
{%- endfor -%}
. Thresholds, models and figures know these patients: the figures are too good for new patients.
{%- endmacro %}

{% macro note_seeds(system, n_seeds) -%}
Figures of {{ system }} are means over {{ n_seeds }} training seeds; its curves, confusion matrices
and images are those of the first seed.
{%- endmacro %}

{% macro note_unit(unit, units, n_units, n_images, n_positive, n_left_out) -%}
By {{ unit }}: {{ "{:,}".format(n_units) }} {{ units }} of {{ "{:,}".format(n_images) }} images,
{{ "{:,}".format(n_positive) }} of them positive. A {{ unit }} is positive if any of its images is.
Its score is the highest of its images, and thresholds are chosen again on validation {{ units }}.
{%- if n_left_out %}
{{ "{:,}".format(n_left_out) }} {{ units }} are left out, because an image has no known label and
none is positive.
{%- endif -%}
{%- endmacro %}

""")


def sentence(kind: str, /, **values: Any) -> str:
    """Return a sentence about a comparison, from a template of this module.

    Args:
        kind: Name of the template, such as ``exploratory``.
        **values: Values to fill into the template, by name of its arguments, such as
            ``system="A"``.

    Returns:
        The text, on one line.

    Example:
        >>> sentence("exploratory")
        'Exploratory: no protocol fixed the question beforehand.'
    """
    return _TEMPLATES.text(kind, **values)


def note(kind: NoteKind, template: str = "", /, **values: Any) -> Note:
    """Return a note about a comparison for its report, with a sentence from a template.

    Args:
        kind: Kind of the note, such as ``seeds``, which decides where a report shows it.
        template: Name of the template in this module, without its beginning ``note_``; if it is
            empty, `kind` is taken.
        **values: Values to fill into the template, by name of its arguments, such as
            ``system="A"``.

    Returns:
        The note: kind, sentence and values.

    Example:
        >>> note("seeds", system="A", n_seeds=3).values
        {'system': 'A', 'n_seeds': 3}
    """
    return Note(kind, _TEMPLATES.text(f"note_{template or kind}", **values), values)
