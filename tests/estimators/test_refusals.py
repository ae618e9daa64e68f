"""Parameters and data that `fit` refuses, in words."""

import numpy as np
import pytest
from messages import raises

from bloodseg.ode.methods import TABLEAUS


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"network": "vnet"}, "The 'network' parameter of BloodCellSegmenter must be a str among"),
        ({"preprocessor": "clahe"}, "The 'preprocessor' parameter of BloodCellSegmenter must be"),
        (
            {"ode_method": "dopri6"},
            "The 'ode_method' parameter of BloodCellSegmenter must be a str",
        ),
        (
            {"ode_method": TABLEAUS["rk4"]},
            "ode_method must be the name of a method, which a model file can hold; got the Tableau "
            "'rk4'. bloodseg.networks.NODEsUNet takes one, and BloodCellSegmenter such a network: ",
        ),
        ({"ode_n_steps": 0}, "The 'ode_n_steps' parameter of BloodCellSegmenter must be an int in"),
        (
            {"ode_n_steps": 8},
            "ode_n_steps=8 is for fixed-step methods (euler, midpoint, rk4); 'auto' takes as many",
        ),
        ({"ode_gradient": "x"}, "The 'ode_gradient' parameter of BloodCellSegmenter must be a str"),
        ({"width": 0}, "The 'width' parameter of BloodCellSegmenter must be an int in the range"),
        ({"dropout": 1.0}, "must be a float in the range [0.0, 1.0). Got 1.0 instead."),
        ({"loss": "dice"}, "The 'loss' parameter of BloodCellSegmenter must be a str among"),
        ({"max_epochs": 0}, "must be an int in the range [1, inf). Got 0 instead."),
        ({"batch_size": 0}, "The 'batch_size' parameter of BloodCellSegmenter must be an int in"),
        ({"learning_rate": 0}, "must be a float in the range (0.0, inf). Got 0 instead."),
        ({"crop_size": 31}, "must be an int in the range [32, inf). Got 31 instead."),
        ({"augment": "yes"}, "The 'augment' parameter of BloodCellSegmenter must be an instance"),
        ({"validation_fraction": 1.0}, "The 'validation_fraction' parameter of BloodCellSegmenter"),
        ({"patience": 0}, "The 'patience' parameter of BloodCellSegmenter must be an int in the"),
        ({"precision": "half"}, "The 'precision' parameter of BloodCellSegmenter must be a str"),
        ({"accelerator": "gpu"}, "The 'accelerator' parameter of BloodCellSegmenter must be an"),
        ({"random_state": "x"}, "The 'random_state' parameter of BloodCellSegmenter must be an"),
        ({"class_weight": "even"}, "The 'class_weight' parameter of BloodCellSegmenter must be"),
        (
            {"class_weight": (1, 2)},
            "class_weight must hold three finite weights, not negative, for",
        ),
        ({"class_weight": (1, 2, -1)}, "background, white, red; got (1, 2, -1)."),
        ({"class_weight": (1, 2, np.nan)}, "class_weight must hold three finite weights"),
        (
            {"class_weight": {"green": 2}},
            "class_weight must name the classes background, white, red or 0, 1, 2; got 'green'.",
        ),
        ({"ode_positions": (0,)}, "ode_positions must hold different whole numbers from 1 to 9"),
        ({"ode_tol": -1}, "ode_tol must be positive and finite; got -1."),
        ({"ode_tol": (1e-3,)}, "ode_tol must hold one number for each of ode_positions=(4, 5, 6)"),
        ({"ode_tol": {4: 1e-3}}, "ode_tol must name every position in ode_positions=(4, 5, 6)"),
        ({"predict_ode_tol": 0}, "predict_ode_tol must be positive and finite; got 0."),
        ({"device": "abacus"}, "device must be 'auto' or a device that torch reaches on this"),
    ],
    ids=lambda value: (
        "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_parameters_that_are_refused(tiny, smears, parameters, text):
    with raises(text):
        tiny(**parameters).fit(smears.images, smears.masks)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": "nan"}, "images[1] must hold finite values; got NaN or infinity."),
        ({"images": "inf"}, "images[1] must hold finite values; got NaN or infinity."),
        ({"images": "range"}, "images[1] has dtype float64, so its values must lie in [0, 1]; got"),
        ({"images": "single"}, "which looks like a single image. Pass images[np.newaxis]"),
        (
            {"masks": "label"},
            "masks[1] must hold the labels 0 to 2 (background, white, red), or 255",
        ),
        ({"masks": "shape"}, "masks[1] must have shape (32, 32), as its image has; got (31, 32)."),
        ({"masks": "short"}, "masks must hold one label map an image; got 5 label maps for 6 im"),
        ({"groups": [1, 2]}, "groups must hold one name or number for each of 6 images, none of "),
        ({"groups": [*"abcde", None]}, "groups must hold one name or number for each of 6"),
        ({"groups": np.ones((6, 2))}, "got shape (6, 2). Give images without a group one of their"),
        ({"sample_weight": ["a"] * 6}, "sample_weight must hold one finite weight, not negative"),
        ({"sample_weight": [1, 2]}, "sample_weight must hold one finite weight, not negative, for"),
        ({"sample_weight": [1, 1, 1, 1, 1, -1]}, "sample_weight must hold one finite weight, not"),
        ({"sample_weight": [1, 1, 1, 1, 1, np.nan]}, "sample_weight must hold one finite weight"),
        (
            {"sample_weight": [0] * 6},
            "sample_weight must be above zero for a training image",
        ),
        ({"X_val": "images"}, "X_val and y_val must be given together; y_val is missing."),
        ({"y_val": "masks"}, "X_val and y_val must be given together; X_val is missing."),
        ({"X_val": "images", "y_val": "short"}, "y_val must hold one label map an image; got 5"),
        ({"X_val": "nan", "y_val": "masks"}, "X_val[1] must hold finite values"),
    ],
    ids=str,
)
def test_data_that_are_refused(tiny, smears, change, text):
    images = smears.images / 255
    spoilt = {name: images.copy() for name in ("nan", "inf", "range")}
    spoilt["nan"][1, 0, 0, 0] = np.nan
    spoilt["inf"][1, 0, 0, 0] = np.inf
    spoilt["range"][1, 0, 0, 0] = 1.5
    masks = list(smears.masks)
    label = smears.masks.copy()
    label[1, 0, 0] = 7
    given = spoilt | {
        "images": images,
        "single": images[0],
        "masks": masks,
        "label": label,
        "shape": [masks[0], masks[1][1:], *masks[2:]],
        "short": masks[1:],
    }
    arguments = {"images": images, "masks": masks}
    for name, value in change.items():
        arguments[name] = given[value] if isinstance(value, str) else value
    model = tiny()
    with raises(text):
        model.fit(arguments.pop("images"), arguments.pop("masks"), **arguments)
    assert not any(name.endswith("_") for name in vars(model))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "save"])
def test_not_fitted(tiny, smears, method, tmp_path):
    argument = tmp_path / "m" if method == "save" else smears.images
    with pytest.raises(Exception, match="This BloodCellSegmenter instance is not fitted yet"):
        getattr(tiny(), method)(argument)
