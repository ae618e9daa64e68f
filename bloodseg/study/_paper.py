"""What the paper reports: its Tables 1 and 2, scores in per cent."""

from __future__ import annotations

_COLUMNS = ("pixel_accuracy", "cpa_background", "cpa_red", "cpa_white", "mean_iou", "seconds")


def _table(rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(_COLUMNS, values, strict=False)) for name, values in rows.items()}


TABLE_1 = _table(
    {
        "U-Net": (94.59, 92.55, 96.54, 94.10, 88.58, 0.15),
        "ODEUNet1": (95.05, 94.25, 95.97, 93.92, 89.80, 7.35),
        "ODEUNet2": (95.08, 94.23, 95.69, 95.98, 89.68, 3.73),
        "ODEUNet3": (95.11, 95.14, 95.70, 91.65, 89.61, 1.94),
        "ODEUNet4": (95.19, 94.08, 96.51, 93.42, 90.17, 1.03),
        "ODEUNet5": (95.05, 95.62, 94.62, 94.53, 89.62, 0.61),
        "ODEUNet6": (95.14, 93.78, 96.34, 95.39, 90.09, 1.06),
        "ODEUNet7": (95.17, 93.80, 96.59, 94.19, 90.02, 1.95),
        "ODEUNet8": (95.16, 94.33, 96.30, 92.98, 89.91, 3.72),
        "ODEUNet9": (95.14, 94.33, 96.23, 93.15, 90.03, 7.35),
    }
)
"""One ODE-block at each position, tolerance 1e-3; seconds for 20 test images on four GPUs."""

TABLE_2 = _table(
    {
        "U-Net": (94.42, 92.55, 96.54, 94.10, 88.43),
        "ResNet": (94.84, 94.55, 95.60, 92.89, 89.48),
        "NODEs-UNet": (95.30, 94.58, 95.94, 95.37, 90.61),
    }
)
"""Three networks; the table has no times."""

TABLES = {"positions": TABLE_1, "networks": TABLE_2}

MEMORY_OF_RESNET = 0.46
"""Memory of the NODEs-UNet's weights, as a share of the ResNet's (Section 4.2)."""
