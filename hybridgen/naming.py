"""What learners, test sets and metrics are called, and how a learner looks, in figure and table.

The *name* of a result row is its learner, with " refined" behind it where the answer was refined;
a name has one colour and one marker in every figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["ABLATION", "Row", "colour", "label", "marker", "ordered", "row_name"]

Row = Mapping[str, Any]
"""A result row: a mapping with the columns of `results.json`."""

ABLATION = ("hvae_general", "hvae_unregularised")
"""Learners whose comparison shows what the regularisers do."""

# Okabe and Ito (2008), Color Universal Design: told apart by colour-blind readers.
_NAMES = {
    "mean": ("mean baseline", "#777777", ""),
    "expert_only": ("expert only", "#E69F00", "s"),
    "expert_only refined": ("expert only refined", "#B36B00", "X"),
    "network_only": ("network only", "#CC79A7", "^"),
    "aphynity": ("APHYNITY", "#56B4E9", "v"),
    "aphynity refined": ("APHYNITY refined", "#7A5195", "P"),
    "aphynity+": ("APHYNITY+", "#0072B2", "o"),
    "aphynity+ refined": ("APHYNITY+ refined", "#009E73", "D"),
    "hvae": ("HVAE", "#B8860B", "<"),
    "hvae+": ("HVAE+", "#D55E00", ">"),
    "hvae+ refined": ("HVAE+ refined", "#7A1F00", "h"),
    "hvae_general": ("HVAE, general residual", "#8C7853", "1"),
    "hvae_unregularised": ("HVAE, general residual, no regularisers", "#4D4D00", "2"),
    "true_model": ("true-model fit", "#111111", ""),
}
_WORDS = {
    "none": "in support", "failed": "failed predictions",
    "relative_error": "relative error of the parameters",
    "log_mse_summed": "log squared error of the forecast",
}  # fmt: skip


def row_name(row: Row) -> str:
    """Return the name under which a row is drawn; a fit of the true model is always refined."""
    refined = row["inference"] == "refined" and row["learner"] != "true_model"
    return f"{row['learner']} refined" if refined else str(row["learner"])


def label(word: str) -> str:
    """Return the words for a name, a shift or a metric; one that has none is shown as it is.

    Example:
        >>> label("aphynity+"), label("none"), label("far")
        ('APHYNITY+', 'in support', 'far')
    """
    return _NAMES[word][0] if word in _NAMES else _WORDS.get(word, word)


def colour(name: str) -> str:
    """Return the colour of a name, the same in every figure; grey for a name without one."""
    return _NAMES[name][1] if name in _NAMES else "#555555"


def marker(name: str) -> str:
    """Return the marker of a name; a dot for a name without one."""
    return _NAMES[name][2] if name in _NAMES else "."


def ordered(names: Iterable[str]) -> list[str]:
    """Return the distinct names, baselines first and the true model last.

    Example:
        >>> ordered(["true_model", "aphynity+", "mean", "aphynity+"])
        ['mean', 'aphynity+', 'true_model']
    """
    known = list(_NAMES)
    last = known.index("true_model")
    return sorted(set(names), key=lambda n: (known.index(n) if n in known else last - 0.5, n))
