"""Which images are of one patient, and so share a role, a fold and a place in a resample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy  # whose parts load when they are first used

Links = pd.Series | pd.DataFrame | None
"""Keys of images, indexed by ``image_id``: images that share one are of one patient."""


def patient_groups(images: pd.DataFrame, links: Links = None) -> pd.Series:
    """Name the patient group of each image: its patient, or the first of several linked patients.

    Args:
        images: Reads ``image_id``, ``patient_id``.
        links: Keys of each image, a column a kind of key; patients who share one (an image that
            stands under two names) are one group.

    Returns:
        Group names, indexed by ``image_id``, sorted by it.

    Example:
        >>> images = pd.DataFrame({"image_id": list("abc"), "patient_id": list("wvu")})
        >>> patient_groups(images, pd.Series({"a": "one image", "b": "one image"})).tolist()
        ['v', 'v', 'u']
    """
    patient = images.set_index("image_id")["patient_id"].sort_index()
    codes, names = pd.factorize(patient, sort=True)
    # Patients and keys are the two kinds of nodes of one graph; its components are the groups.
    starts, ends, n_nodes = [codes[:0]], [codes[:0]], len(names)
    for keys in key_columns(links):
        key_codes, unique = pd.factorize(keys.reindex(patient.index))
        known = key_codes >= 0
        starts.append(codes[known])
        ends.append(key_codes[known] + n_nodes)
        n_nodes += len(unique)
    if n_nodes == len(names):
        return patient
    edges = (np.concatenate(starts), np.concatenate(ends))
    ones = np.ones(len(edges[0]), dtype=np.int8)
    graph = scipy.sparse.coo_array((ones, edges), shape=(n_nodes, n_nodes))
    groups = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    component = groups[: len(names)]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(np.asarray(names)[first[codes]], index=patient.index)


def key_columns(links: Links) -> list[pd.Series]:
    """The keys that link images, one Series a kind of key, indexed by ``image_id``."""
    if links is None:
        return []
    frame = pd.DataFrame(links)
    return [frame[column] for column in frame.columns]
