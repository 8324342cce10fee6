"""The published settings of trajectory matching, by data set and images per class."""

from collections.abc import Mapping
from typing import Any

NAMES = (
    "syn_steps", "expert_epochs", "min_start_epoch", "initial_max_start_epoch", "max_start_epoch", "expansion_end",
    "lr_images", "lr_labels", "lr_lr", "batch_syn",
)  # fmt: skip

DATM = {
    ("cifar10", 1): (80, 2, 0, None, 4, None, 100, 5, 1e-7, 10),
    ("cifar10", 10): (80, 2, 0, 10, 20, 1000, 100, 2, 1e-5, 100),
    ("cifar10", 50): (80, 2, 0, 20, 40, 2000, 1000, 2, 1e-5, 500),
    ("cifar10", 500): (40, 2, 40, None, 60, None, 50, 10, 1e-5, 1000),
    ("cifar10", 1000): (100, 2, 40, None, 60, None, 50, 10, 1e-5, 1000),
    ("cifar100", 1): (40, 3, 0, 10, 20, 1000, 1000, 10, 1e-5, 1000),
    ("cifar100", 10): (80, 2, 0, 30, 50, 2000, 1000, 10, 1e-5, 1000),
    ("cifar100", 50): (80, 2, 20, None, 70, None, 1000, 10, 1e-5, 1000),
    ("cifar100", 100): (80, 2, 30, None, 70, None, 50, 10, 1e-5, 1000),
    ("tiny_imagenet", 1): (40, 2, 0, 15, 20, 2000, 10000, 10, 1e-4, 1000),
    ("tiny_imagenet", 10): (40, 2, 10, None, 50, None, 100, 10, 1e-4, 500),
    ("tiny_imagenet", 50): (20, 2, 40, None, 70, None, 100, 10, 1e-4, 1000),
}
"""The configurations of DATM's authors after their correction of April 2024; `NAMES` in order."""

DATM_OTHER: dict[tuple[str, int], dict[str, Any]] = {
    ("cifar10", 1): {"threshold": 1.1},
    ("cifar100", 50): {"init": "real", "label_source": "single"},
}
"""What else distinguishes a row of `DATM`."""

PREDECESSORS = {
    "mtt": {
        ("cifar10", 1): (50, 2, 2, 100, 1e-7, 0.01, None),
        ("cifar10", 10): (30, 2, 20, 100, 1e-5, 0.001, None),
        ("cifar10", 50): (30, 2, 40, 1000, 1e-5, 0.001, None),
        ("cifar100", 1): (20, 3, 20, 1000, 1e-5, 0.01, None),
        ("cifar100", 10): (20, 2, 20, 1000, 1e-5, 0.01, None),
        ("cifar100", 50): (80, 2, 40, 1000, 1e-5, 0.01, 125),
        ("tiny_imagenet", 1): (10, 2, 10, 10000, 1e-4, 0.01, None),
        ("tiny_imagenet", 10): (20, 2, 40, 10000, 1e-4, 0.01, 200),
        ("tiny_imagenet", 50): (20, 2, 40, 10000, 1e-4, 0.01, 300),
    },
    "ftd": {
        ("cifar10", 1): (50, 2, 2, 100, 1e-7, 0.01, None),
        ("cifar10", 10): (30, 2, 20, 100, 1e-5, 0.001, None),
        ("cifar10", 50): (30, 2, 40, 1000, 1e-5, 0.01, None),
        ("cifar100", 1): (40, 3, 20, 1000, 1e-5, 0.01, None),
        ("cifar100", 10): (20, 2, 40, 1000, 1e-5, 0.01, None),
        ("cifar100", 50): (80, 2, 40, 1000, 1e-5, 0.01, 1000),
        ("tiny_imagenet", 1): (30, 2, 10, 10000, 1e-4, 0.01, None),
        ("tiny_imagenet", 10): (20, 2, 40, 10000, 1e-4, 0.01, 500),
    },
    "tesla": {
        ("cifar10", 1): (50, 2, 5, 1000, 1e-7, 0.01, None),
        ("cifar100", 50): (80, 2, 40, 1000, 1e-5, 0.01, 125),
    },
}
"""N, M, T+, lr_images, lr_lr, a_0 and B: MTT by its authors' commands (DC-Bench), FTD its Table 7, TESLA its README."""

FTD_OTHER = {
    ("cifar10", 1): {"alpha": 0.3, "average": 0.9999},
    ("cifar10", 10): {"alpha": 0.3, "average": 0.9995},
    ("cifar10", 50): {"alpha": 1.0, "average": 0.999},
    ("cifar100", 1): {"alpha": 1.0, "average": 0.9995},
    ("cifar100", 10): {"alpha": 1.0, "average": 0.9995},
    ("cifar100", 50): {"alpha": 1.0, "average": 0.999},
    ("tiny_imagenet", 1): {"alpha": 1.0, "average": 0.999},
    ("tiny_imagenet", 10): {"alpha": 1.0, "average": 0.999},
}
"""GSAM's alpha and the moving average's decay of FTD."""


def published(method: str, dataset: str, ipc: int) -> Mapping[str, Any]:
    """The settings that a method's authors gave for a data set and a number of images per class; none: empty.

    Args:
        method: "mtt", "tesla", "ftd" or "datm".
    """
    where = dataset, ipc
    if method == "datm":
        return dict(zip(NAMES, DATM[where], strict=True)) | DATM_OTHER.get(where, {}) if where in DATM else {}
    if where not in PREDECESSORS[method]:
        return {}
    names = ("syn_steps", "expert_epochs", "max_start_epoch", "lr_images", "lr_lr", "lr_student", "batch_syn")
    found = dict(zip(names, PREDECESSORS[method][where], strict=True))
    return found | (FTD_OTHER[where] if method == "ftd" else {})
