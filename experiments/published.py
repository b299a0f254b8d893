"""Published values that studies of ours stand beside: relative errors of inferred parameters."""

from __future__ import annotations

from typing import Any

from hybridgen.evaluation import Row

__all__ = ["RELATIVE_ERROR", "published_rows"]

RELATIVE_ERROR: dict[str, dict[tuple[str, str], tuple[float, float]]] = {
    "pendulum": {
        ("aphynity", "none"): (6.0, 2.0),
        ("aphynity", "ood"): (66.0, 9.0),
        ("aphynity+", "none"): (6.0, 2.0),
        ("aphynity+", "ood"): (10.0, 4.0),
        ("hvae", "none"): (3.0, 1.0),
        ("hvae", "ood"): (117.0, 10.0),
        ("hvae+", "none"): (2.0, 1.0),
        ("hvae+", "ood"): (11.0, 2.0),
    },
    "rlc": {
        ("aphynity", "none"): (6.0, 3.0),
        ("aphynity", "ood"): (17.0, 3.0),
        ("aphynity+", "none"): (7.0, 5.0),
        ("aphynity+", "ood"): (5.0, 2.0),
        ("hvae", "none"): (38.0, 2.0),
        ("hvae", "ood"): (25.0, 2.0),
        ("hvae+", "none"): (28.0, 1.0),
        ("hvae+", "ood"): (12.0, 1.0),
    },
    "reaction_diffusion": {
        ("aphynity", "none"): (2.0, 0.0),
        ("aphynity", "ood"): (27.0, 2.0),
        ("aphynity+", "none"): (2.0, 0.0),
        ("aphynity+", "ood"): (3.0, 1.0),
        ("hvae", "none"): (2.0, 0.0),
        ("hvae", "ood"): (32.0, 10.0),
        ("hvae+", "none"): (2.0, 0.0),
        ("hvae+", "ood"): (2.0, 0.0),
    },
}
"""Relative error of the expert's parameters in %, mean and standard deviation over 10 runs, by
problem, learner and shift (Robust Hybrid Learning With Expert Augmentation, Wehenkel et al., 2022,
arXiv:2202.03881, the table of relative precision)."""


def published_rows(name: str, experiment: str, problem: str) -> list[dict[str, Any]]:
    """Return the published values of a problem as rows.

    Arguments:
        name: The problem, a key of `RELATIVE_ERROR`.
        experiment: Name of the experiment in the rows.
        problem: Name of the system in the rows.
    """
    return [
        Row(
            experiment=experiment,
            problem=problem,
            variant=learner,
            learner="published",
            split="valid" if shift == "none" else "ood",
            shift=shift,
            distance=None,
            metric="relative_error",
            value=value,
            low=value - sd,
            high=value + sd,
            unit="%",
            seed="mean",
            n_seeds=10,
        ).asdict()
        for (learner, shift), (value, sd) in RELATIVE_ERROR[name].items()
    ]
