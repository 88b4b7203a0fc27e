"""Images on which a joint system and a member decide differently, and which of them is right."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem

CHANGES = ("missed, now found", "false alarm, now negative", "found, now missed", "new false alarm")
"""Ways in which the decision of a member and that of the joint system differ: two for the better,
then two for the worse."""


def decision_changes(
    decisions: pd.DataFrame, policy: str, joint: str, members: tuple[str, ...]
) -> pd.DataFrame:
    """List the images on which a joint system decides otherwise than one of its members.

    Args:
        decisions: One row for each image and system with ``image_id``, ``system``, ``label`` and
            ``decision_POLICY``.
        policy: Rule by which thresholds were chosen, such as ``max_f1``.
        joint: Name of the joint system.
        members: Names of the systems that it joins.

    Returns:
        One row for each image and member whose decisions differ, with ``member``, ``image_id`` and
        ``change``, one of `CHANGES`. Images without a label or a decision are left out.
    """
    column = f"decision_{policy}"
    rows: list[tuple[str, str, str]] = []
    if column in decisions:
        known = decisions.dropna(subset=["label", column]).drop_duplicates(["image_id", "system"])
        called = known.pivot(index="image_id", columns="system", values=column)
        label = known.drop_duplicates("image_id").set_index("image_id")["label"]
        for member in members:
            if not {joint, member} <= set(called.columns):
                continue
            pair = called[[joint, member]].dropna().astype(bool)
            differing = pair[pair[joint] != pair[member]]
            positive = label.reindex(differing.index) == 1
            for image_id, now, is_positive in zip(
                differing.index, differing[joint], positive, strict=True
            ):
                better = now == is_positive
                change = CHANGES[(0 if better else 2) + (0 if now == better else 1)]
                rows.append((member, str(image_id), change))
    return pd.DataFrame(rows, columns=["member", "image_id", "change"])


def joint_record(comparison: Comparison) -> dict[str, Any] | None:
    """Return the joint system, its members and the numbers of changed decisions, for JSON."""
    joint = comparison.joint
    if joint is None:
        return None
    policy = comparison.main_policy
    return {
        "name": joint.name,
        "members": list(joint.members),
        "policy": policy,
        "changes": _counts(comparison).to_dict("index"),
    }


def joint_system(stored: Any) -> JointSystem | None:
    """Return the joint system that the ``answer.json`` of a report records; None without one."""
    return None if stored is None else JointSystem(stored.name, stored.members)


def _counts(comparison: Comparison) -> pd.DataFrame:
    """Count the changes, with one row for each member and one column for each change."""
    joint = comparison.joint
    if joint is None:
        return pd.DataFrame(columns=list(CHANGES))
    changes = decision_changes(
        comparison.decisions, comparison.main_policy, joint.name, joint.members
    )
    counts = pd.crosstab(changes["member"], changes["change"])
    return counts.reindex(index=list(joint.members), columns=list(CHANGES), fill_value=0)
