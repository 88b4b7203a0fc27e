"""Groups of images that belong to one patient, by their patient ids and by shared copies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy  # its parts load when they are first used


def connected_components(
    starts: list[np.ndarray], ends: list[np.ndarray], n_nodes: int
) -> np.ndarray:
    """Return the component, from 0, of each node of an undirected graph, shape ``(n_nodes,)``.

    Nodes are numbers from 0. `starts` and `ends` are the two nodes of each edge, in several arrays,
    such as one for each kind of edge.
    """
    edges = (np.concatenate(starts), np.concatenate(ends))
    ones = np.ones(len(edges[0]), dtype=np.int8)
    graph = scipy.sparse.coo_array((ones, edges), shape=(n_nodes, n_nodes))
    return np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1])


Links = pd.Series | pd.DataFrame | None
"""Keys of images, indexed by ``image_id``; images that share a key are of one patient."""


def patient_groups(images: pd.DataFrame, links: Links = None) -> pd.Series:
    """Return the group of patients of each image, which must not be divided by a split.

    Patients who share a key, for example because both have a copy of the same image, form one
    group, which has the name of its first patient. The links are as in `key_columns`. The groups
    are indexed by ``image_id`` in sorted order.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"]})
        >>> patient_groups(images, pd.Series(["x", "x"], index=["a", "b"])).tolist()
        ['p', 'p']
    """
    patient = images.set_index("image_id")["patient_id"].sort_index()
    columns = key_columns(links)
    if not columns:
        return patient
    codes, names = pd.factorize(patient, sort=True)
    # Patients and keys are the two kinds of nodes of one graph; its components are the groups.
    starts = [codes[:0]]
    ends = [codes[:0]]
    n_nodes = len(names)
    for keys in columns:
        key_codes, unique = pd.factorize(keys.reindex(patient.index))
        has_key = key_codes >= 0
        starts.append(codes[has_key])
        ends.append(key_codes[has_key] + n_nodes)
        n_nodes += len(unique)
    if n_nodes == len(names):
        return patient
    component = connected_components(starts, ends, n_nodes)[: len(names)]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(np.asarray(names)[first[codes]], index=patient.index)


def key_columns(links: Links) -> list[pd.Series]:
    """Return the keys that tie images together, as one Series for each kind of key.

    Keys are indexed by ``image_id``: a Series, a frame with one column for each kind of key, or
    None. Images with the same key must be in the same of train, validation and test.
    """
    if links is None:
        return []
    frame = pd.DataFrame(links)
    return [frame[column] for column in frame.columns]
