"""Whose image is it: the groups of images that a split must not take apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def key_columns(linked: pd.Series | pd.DataFrame | None) -> list[pd.Series]:
    """The keys that link images, one Series a kind of key, indexed by ``image_id``."""
    if linked is None:
        return []
    frame = pd.DataFrame(linked)
    return [frame[column] for column in frame.columns]


def unverified(images: pd.DataFrame) -> pd.Series:
    """Ids of the images of which it is doubtful who they show."""
    if "patient_id_source" not in images.columns:
        return images["image_id"].iloc[:0]
    return images.loc[images["patient_id_source"] == "mapped_unverified", "image_id"]


def group_images(images: pd.DataFrame, linked: pd.Series | pd.DataFrame | None = None) -> pd.Series:
    """Name the group of each image: its patient, or the first of several linked patients.

    Args:
        images: Reads ``image_id``, ``patient_id``.
        linked: As for `split_by_patient`.

    Returns:
        Group names, indexed by ``image_id``, sorted by it.

    Example:
        >>> images = pd.DataFrame({"image_id": list("abc"), "patient_id": list("wvu")})
        >>> group_images(images, pd.Series({"a": "one picture", "b": "one picture"})).tolist()
        ['v', 'v', 'u']
    """
    patient = images.set_index("image_id")["patient_id"].sort_index()
    codes, names = pd.factorize(patient, sort=True)
    # Patients and keys are the two kinds of nodes of one graph; its components are the groups.
    starts, ends, n_nodes = [codes[:0]], [codes[:0]], len(names)
    for keys in key_columns(linked):
        key_codes, unique = pd.factorize(keys.reindex(patient.index))
        known = key_codes >= 0
        starts.append(codes[known])
        ends.append(key_codes[known] + n_nodes)
        n_nodes += len(unique)
    if n_nodes == len(names):
        return patient
    edges = (np.concatenate(starts), np.concatenate(ends))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][: len(names)]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(np.asarray(names)[first[codes]], index=patient.index)
