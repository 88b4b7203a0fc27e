"""Which tensors of a checkpoint are those of a network, and what differs where they are not.

No torch: of a tensor only its shape and its arithmetic are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from data_prep.contracts.errors import InputError
from networks.checkpoint_names import body_key

STEP_COUNTER = "num_batches_tracked"
"""End of the names of batch norm's counters, which old files lack and which change nothing."""
Shapes = Mapping[str, tuple[int, ...]]


def match_names(
    keys: Iterable[str], rename: Callable[[str], str], *, source: str
) -> dict[str, str]:
    """Names in a checkpoint by their normal names, which `rename` gives; no step counters.

    Raises:
        InputError: Two tensors have the same normal name.

    Example:
        >>> match_names(["module.layer1.0.conv1.weight"], body_key, source="w.pth")
        {'layer1.0.conv1.weight': 'module.layer1.0.conv1.weight'}
    """
    places: dict[str, str] = {}
    for key in keys:
        if key.endswith(STEP_COUNTER):
            continue
        if (first := places.setdefault(rename(key), key)) != key:
            raise InputError(f"{source}: holds two networks ({first} and {key}); save one alone")
    return places


def match_body(
    state: Mapping[str, Any],
    own: Mapping[str, Any],
    *,
    source: str,
    describe: Callable[[Shapes, Shapes], str],
    rename: Callable[[str], str] = body_key,
) -> dict[str, Any]:
    """Take from a checkpoint of any network the tensors of a body that it shares, all or none.

    A first layer that reads one grey channel is spread over those that the body reads, which all
    hold the same picture: each gets its part.

    Args:
        state: Tensors of the checkpoint by name. Those of other layers are passed over.
        own: The body's, its first layer's weights first.
        source: Where the checkpoint comes from, for errors.
        describe: Says what differs, from the shapes found and those wanted; `tell_difference`.
        rename: Gives the normal name of a tensor in the checkpoint.

    Returns:
        The checkpoint's tensors by the body's own names, without step counters.

    Raises:
        InputError: The checkpoint is of another network, of two, or a value is not finite.
    """
    mine = match_names(own, body_key, source="this network")
    parts = {name.split(".")[0] for name in mine}
    inside = [key for key in state if rename(key).split(".")[0] in parts]
    theirs = match_names(inside, rename, source=source)
    given = {name: state[key] for name, key in theirs.items()}
    stem, first = next((name, own[key]) for name, key in mine.items())
    if stem in given and (*given[stem].shape,) == (*first.shape[:1], 1, *first.shape[2:]):
        given[stem] = given[stem].expand(first.shape) / first.shape[1]
    found = {name: tuple(value.shape) for name, value in given.items()}
    wanted = {name: tuple(own[key].shape) for name, key in mine.items()}
    if found != wanted:
        raise InputError(f"{source}: {describe(found, wanted)}")
    for name, value in given.items():
        require_finite(value, theirs[name], source)
    return {key: given[name] for name, key in mine.items()}


def require_finite(value: Any, key: str, source: str) -> None:
    """Refuse a checkpoint's tensor that holds a value that is not finite.

    Raises:
        InputError: It does; names the tensor by `key` and the checkpoint by `source`.
    """
    if not value.isfinite().all():
        raise InputError(
            f"{source}: {key} holds values that are not finite; its training diverged, take "
            "another checkpoint"
        )


def tell_difference(
    found: Shapes,
    wanted: Shapes,
    *,
    name: str,
    what: str | None,
    known: Collection[str],
    setting: str,
) -> str:
    """Say why a checkpoint's tensors are not those of a network, and what to do.

    Args:
        found: Shapes in the checkpoint, by normal names.
        wanted: Shapes in the network.
        name: The network's.
        what: Network or family of the checkpoint, as `guess_architecture` says; None: not known.
        known: Networks that could be chosen instead.
        setting: Key of the configuration that chooses.

    Example:
        >>> tell_difference({}, {}, name="vgg16", what="resnet18", known=["vgg16", "resnet18"],
        ...     setting="model.backbone")
        'weights of resnet18, not of vgg16; set model.backbone to resnet18'
    """
    # A guess may be exact, or name a family or two, of which the wanted network may be one.
    fitting = [other for other in known if what and other.startswith(tuple(what.split(" or ")))]
    if what not in (None, name) and name not in fitting:
        file = f"take a file of one of {', '.join(known)}" if known else "take another file"
        advice = f"set {setting} to {' or '.join(fitting)}" if fitting else file
        return f"weights of {what}, not of {name}; {advice}"
    kinds = {
        "missing": [key for key in wanted if key not in found],
        "of another shape": [key for key in wanted if found.get(key, wanted[key]) != wanted[key]],
        "too many": [key for key in found if key not in wanted],
    }
    told = "; ".join(f"{len(k)} {kind} (first {k[0]})" for kind, k in kinds.items() if k)
    return (
        f"not weights of {name}, whose {len(wanted)} tensors were looked for: {told}; take another "
        f"file, or set {setting} to the network that it is of"
    )
