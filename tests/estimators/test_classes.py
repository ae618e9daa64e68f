"""Classes other than the paper's three, from label maps to counts, files and the next training."""

import json

import numpy as np
import pytest
import torch
from messages import raises
from safetensors import safe_open
from safetensors.torch import save_file

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.cells import to_coco, to_geojson
from bloodseg.datasets import make_smears
from bloodseg.metrics import scores_from_confusion
from bloodseg.networks import NETWORKS, UNet
from bloodseg.networks._new import Start, new_network

FOUR = ("background", "white", "red", "platelet")
TINY = {"width": 4, "max_epochs": 2, "crop_size": 32, "batch_size": 4, "random_state": 0}
UNTRAINED = {**TINY, "max_epochs": 1, "network": "unet"}


@pytest.fixture(scope="module")
def smears():
    return make_smears(4, image_size=64, red_cell_diameter=24, platelets="label", random_state=3)


@pytest.fixture(scope="module")
def fields():
    return make_smears(
        4,
        image_size=128,
        red_cell_diameter=32,
        density=(0.1, 0.2),
        white_cells=(1, 1),
        platelets="label",
        random_state=0,
    )


@pytest.fixture(scope="module")
def fitted(fields):
    """A U-Net that has seen drawn smears long enough to find all classes in them."""
    segmenter = BloodCellSegmenter(
        network="unet",
        classes=FOUR,
        width=8,
        dropout=0,
        max_epochs=40,
        crop_size=64,
        learning_rate=5e-3,
        validation_fraction=None,
        class_weight={"platelet": 10},
        augment=False,
        random_state=0,
    )
    return segmenter.fit(fields.images, fields.masks)


def test_a_model_of_four_classes_finds_them_all(fitted, fields):
    assert fitted.class_names_ == FOUR
    assert fitted.classes_.tolist() == [0, 1, 2, 3]
    maps = fitted.predict(fields.images)
    for label in range(4):
        same, either = (
            ((maps == label) & (fields.masks == label)).sum(),
            ((maps == label) | (fields.masks == label)).sum(),
        )
        assert same / either > 0.5, FOUR[label]
    probabilities = fitted.predict_proba(fields.images[:1])
    assert probabilities.shape == (1, 128, 128, 4)
    assert np.array_equal(probabilities.argmax(axis=-1), maps[:1])


def test_its_cells_are_counted_measured_and_exported_by_name(fitted, fields):
    fitted.set_params(pixel_size=0.3)
    table = fitted.count(fields.images)
    fitted.set_params(pixel_size=None)
    assert list(table) == [
        *("image", "white", "red", "platelet"),
        *("white_in_frame", "red_in_frame", "platelet_in_frame", "area_mm2", "frame_mm2"),
        *("white_per_mm2", "red_per_mm2", "platelet_per_mm2", "confidence", "doubts"),
    ]
    assert table["platelet"].sum() > 0
    cells = fitted.measure(fields.images, outlines=True)
    platelets = cells[cells["class"] == "platelet"]
    assert len(platelets) == table["platelet"].sum()
    assert platelets[["pallor", "nucleus_area", "nc_ratio"]].isna().all(axis=None)
    of_red = cells.loc[cells["class"] == "red", "area"].median()
    assert platelets["area"].median() < of_red / 3
    sizes = dict.fromkeys(range(4), (128, 128))
    coco = to_coco(cells, sizes, classes=fitted.class_names_)
    assert coco["categories"][-1] == {"id": 3, "name": "platelet"}
    found = [entry["category_id"] for entry in coco["annotations"]]
    assert found.count(3) == len(platelets)
    one = cells[cells["image"] == platelets["image"].iloc[0]]
    features = to_geojson(one, classes=FOUR)["features"]
    colours = {
        feature["properties"]["classification"]["name"]: tuple(
            feature["properties"]["classification"]["color"]
        )
        for feature in features
    }
    assert colours["platelet"] == (0, 158, 115)
    with raises(
        "classes must name the class of every cell; got ('background', 'white', 'red'), and the "
        "table holds cells of class 'platelet'. Pass class_names_ of the segmenter"
    ):
        to_coco(cells, sizes)


def test_masks_without_platelets_hold_them_as_background(fitted, fields):
    plain = np.where(fields.masks == 3, 0, fields.masks)
    maps = fitted.predict(fields.images)
    assert (maps == 3).any()
    shown = np.where(maps == 3, 0, maps)
    equal = [[(a == i) & (b == j) for i in range(3) for j in range(3)] for a, b in [(plain, shown)]]
    matrix = np.array([of.sum() for of in equal[0]]).reshape(3, 3)
    assert fitted.score(fields.images, plain) == scores_from_confusion(matrix)["mean_iou"]
    ones = np.ones(len(plain))
    assert fitted.score(fields.images, plain, ones) == fitted.score(fields.images, plain)
    # One labelled platelet in the set, and all that were found are judged.
    plain[0][fields.masks[0] == 3] = 3
    assert fitted.score(fields.images, plain) < scores_from_confusion(matrix)["mean_iou"]


def test_a_model_file_holds_its_classes(fitted, fields, tmp_path):
    fitted.save(tmp_path / "four.safetensors")
    loaded = BloodCellSegmenter.load(tmp_path / "four.safetensors")
    assert loaded.class_names_ == loaded.classes == FOUR
    assert np.array_equal(loaded.predict(fields.images), fitted.predict(fields.images))


def rewrite(path, change):
    """Change the header of a model file, and leave no checksum of it."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["bloodseg"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header.pop("header_checksum", None)
    change(header)
    save_file(weights, path, metadata={"bloodseg": json.dumps(header)})


def architecture_of(header):
    return header["fitted"]["architecture_"]["__mapping__"]


@pytest.mark.parametrize("names", [["background"], ["background", "a", "a"], ["a", "b", "c"], 3])
def test_a_model_file_with_impossible_classes_is_refused(fitted, tmp_path, names):
    path = tmp_path / "bad.safetensors"
    fitted.save(path)

    def change(header):
        for pair in architecture_of(header):
            if pair[0] == "classes":
                pair[1] = names

    rewrite(path, change)
    with raises("bad.safetensors does not hold a model that bloodseg"):
        BloodCellSegmenter.load(path)


def test_a_model_file_of_before_there_were_classes_has_the_three(smears, tmp_path):
    path = tmp_path / "old.safetensors"
    masks = np.where(smears.masks == 3, 0, smears.masks)
    new = BloodCellSegmenter(**UNTRAINED).fit(smears.images, masks)
    new.save(path)

    def forget(header):
        del header["parameters"]["classes"]
        pairs = architecture_of(header)
        pairs[:] = [pair for pair in pairs if pair[0] != "classes"]

    rewrite(path, forget)
    loaded = BloodCellSegmenter.load(path)
    assert loaded.class_names_ == ("background", "white", "red")
    assert np.array_equal(loaded.predict(smears.images), new.predict(smears.images))
    again = BloodCellSegmenter(**UNTRAINED, pretrained=path).fit(smears.images, masks)
    assert again.class_names_ == loaded.class_names_


def test_a_head_keeps_what_it_knows_by_name():
    architecture = {"network": "unet", "width": 4, "dropout": 0.1}
    old = new_network({**architecture, "classes": ("background", "white", "red")}, 0, None)
    weights = {name: weight.numpy() for name, weight in old.state_dict().items()}
    names = ("background", "parasite", "red")
    new, other = (
        new_network({**architecture, "classes": names}, seed, Start(weights)) for seed in (0, 1)
    )
    for mine, theirs in ((0, 0), (2, 2)):
        assert torch.equal(new.head.weight[mine], old.head.weight[theirs])
        assert torch.equal(new.head.bias[mine], old.head.bias[theirs])
    assert not torch.equal(new.head.weight[1], other.head.weight[1])
    assert all(not torch.equal(new.head.weight[1], weight) for weight in old.head.weight)
    rest = {name: weight for name, weight in new.state_dict().items() if "head" not in name}
    assert all(torch.equal(weight, old.state_dict()[name]) for name, weight in rest.items())


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"feedback-unet"}))
def test_a_start_scores_the_classes_that_it_knows_as_before(name):
    architecture = {"network": name, "width": 4, "dropout": 0.1}
    known = ("background", "white", "red")
    old = new_network({**architecture, "classes": known}, 0, None).eval()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for classes in (("background", "red", "white"), ("background", "platelet", "red", "white")):
        start = Start(old.state_dict(), known)
        new = new_network({**architecture, "classes": classes}, 0, start).eval()
        mine = [classes.index(each) for each in known]
        with torch.no_grad():
            torch.testing.assert_close(new(images)[:, mine], old(images))


def test_a_network_that_sees_its_answer_starts_from_its_own_classes_alone():
    architecture = {"network": "feedback-unet", "width": 4, "dropout": 0.1}
    old = new_network({**architecture, "classes": ("background", "white", "red")}, 0, None)
    with raises(
        "'feedback-unet' starts from weights for the same classes alone, for its answer goes into "
        "it again: classes must be ('background', 'white', 'red'); got ('background', 'red', "
        "'white')."
    ):
        classes = ("background", "red", "white")
        new_network({**architecture, "classes": classes}, 0, Start(old.state_dict()))


def test_a_published_model_learns_a_further_class(smears):
    segmenter = BloodCellSegmenter.from_pretrained(
        classes=FOUR, max_epochs=1, crop_size=32, red_cell_diameter=None, random_state=0
    )
    known = segmenter.network_.state_dict()["head.weight"].clone()
    with pytest.warns(UserWarning, match="wait for the next fit: what follows has the classes"):
        assert segmenter.predict(smears.images[:1]).max() <= 2
    segmenter.fit(smears.images[1:3], smears.masks[1:3])
    assert segmenter.class_names_ == FOUR
    head = segmenter.network_.state_dict()["head.weight"]
    # A learning rate of 1e-4 moves weights by about that a step.
    assert (head[:3] - known).abs().max() < 0.01
    assert len(head) == 4


def test_a_warm_start_goes_on_with_other_classes(smears):
    masks = np.where(smears.masks == 3, 0, smears.masks)
    segmenter = BloodCellSegmenter(**UNTRAINED, warm_start=True).fit(smears.images, masks)
    segmenter.set_params(classes=FOUR, learning_rate=1e-9)
    before = segmenter.network_.state_dict()["head.weight"].clone()
    segmenter.fit(smears.images, smears.masks)
    after = segmenter.network_.state_dict()["head.weight"]
    assert torch.allclose(after[:3], before, atol=1e-5)


def test_a_network_of_ones_own_has_as_many_logits_and_starts_from_its_own_classes(smears):
    with raises("gives logits of shape (1, 4, 33, 47) for images"):
        BloodCellSegmenter(network=lambda: UNet(3, width=4), classes=FOUR).fit(
            smears.images, smears.masks
        )
    own = {**UNTRAINED, "network": lambda: UNet(4, width=4), "classes": FOUR, "warm_start": True}
    segmenter = BloodCellSegmenter(**own).fit(smears.images, smears.masks)
    segmenter.set_params(classes=("background", "white", "red", "speck"))
    with raises("a network of your own starts from weights for the same classes alone"):
        segmenter.fit(smears.images, smears.masks)


@pytest.mark.parametrize(
    "classes",
    [
        "background,white,red",
        ("background",),
        ("white", "red"),
        ("background", "white", "white"),
        ("background", ""),
        ("background", 1),
        ("background", "confidence"),
        ("background", "folder"),
        ("background", "white", "white_per_mm2"),
        ("background", "=1+1"),
        ("background", "a,b"),
        ("background", "white "),
        ("background", *map(str, range(255))),
    ],
)
def test_impossible_classes_are_refused(smears, classes):
    for estimator in (BloodCellSegmenter, BloodCellCounter):
        with raises("classes"):
            estimator(**({"classes": classes} | {"width": 4})).fit(smears.images, smears.masks)


def test_the_message_for_impossible_classes_says_all(smears):
    with raises(
        "classes must hold 2 to 255 different names, 'background' first, each a text on one line "
        "that begins with a letter or digit, without commas, and none of image, images, "
        "folder, area_mm2, frame_mm2, confidence, doubts, all or with _in_frame or _per_mm2 at its "
        "end, which are columns of tables; got ('white', 'red'). "
        "The default is ('background', 'white', 'red')."
    ):
        BloodCellSegmenter(classes=("white", "red")).fit(smears.images, smears.masks)


def test_labels_beyond_the_classes_are_refused(smears):
    with raises(
        "masks[0] must hold the labels 0 to 2 (background, white, red), or 255 where the class is "
        "not known; got 0, 2, 3. Map your labels to these first. Or pass the classes that they "
        "stand for."
    ):
        mask = np.array([[0, 2], [3, 0]])
        BloodCellSegmenter().fit(smears.images[:1, :2, :2], mask[np.newaxis])


def test_absent_classes_are_warned_of_by_name(smears):
    masks = np.where(smears.masks == 3, 0, smears.masks)
    with pytest.warns(
        UserWarning,
        match=r"masks hold no platelets \(3\), which the network cannot learn then; they hold the "
        r"labels 0, 1, 2\. Leave what your label maps do not tell apart out of classes\.",
    ):
        BloodCellSegmenter(**UNTRAINED, classes=FOUR).fit(smears.images, masks)


def test_classes_without_red_and_white_cells_work(smears):
    masks = (smears.masks == 3).astype(np.uint8)
    names = ("background", "parasite")
    segmenter = BloodCellSegmenter(**UNTRAINED, classes=names).fit(smears.images, masks)
    assert segmenter.red_cell_diameter_ is None
    table = segmenter.count(smears.images)
    assert list(table) == ["image", "parasite", "confidence", "doubts"]
    assert set(segmenter.measure(smears.images)["class"]) <= {"parasite"}
    with raises("red_cell_diameter='auto' needs red or white cells in the label maps"):
        segmenter.set_params(red_cell_diameter="auto").fit(smears.images, masks)


def test_names_say_what_is_red_and_not_numbers(smears):
    swapped = np.array([0, 2, 1, 3], np.uint8)[smears.masks]
    names = ("background", "red", "white", "platelet")
    plain = BloodCellSegmenter(**UNTRAINED, classes=FOUR).fit(smears.images, smears.masks)
    other = BloodCellSegmenter(**UNTRAINED, classes=names).fit(smears.images, swapped)
    assert other.red_cell_diameter_ == plain.red_cell_diameter_
    # Other weights at the start, so other maps; but of the same map, the same cells and doubts.
    (segmented,) = plain.segment(smears.images[:1])
    mirrored = type(segmented)(
        0,
        segmented.image,
        swapped[0],
        segmented.confidence,
        0.3,
        picture=segmented.picture,
        expected_diameter=24,
        classes=names,
    )
    straight = type(segmented)(
        0,
        segmented.image,
        smears.masks[0],
        segmented.confidence,
        0.3,
        picture=segmented.picture,
        expected_diameter=24,
        classes=FOUR,
    )
    assert mirrored.count() == straight.count()
    assert mirrored.radii == straight.radii
    columns = ["class", "area", "pallor", "nucleus_area", "left", "top"]
    tables = [
        each.measure()[columns].sort_values(columns).reset_index(drop=True)
        for each in (mirrored, straight)
    ]
    assert tables[0].equals(tables[1])


def test_a_counter_counts_every_class_and_starts_from_others(smears, tmp_path):
    settings = {"width": 4, "max_epochs": 1, "scale": 1.0, "network": "unet", "random_state": 0}
    counter = BloodCellCounter(**settings, classes=FOUR).fit(smears.images, smears.counts)
    assert counter.predict(smears.images).shape == (4, 3)
    assert "train_loss" in counter.history_[0]
    counter.save(tmp_path / "four.safetensors")
    loaded = BloodCellCounter.load(tmp_path / "four.safetensors")
    assert loaded.class_names_ == FOUR
    assert np.array_equal(loaded.predict(smears.images), counter.predict(smears.images))
    start = {**settings, "pretrained": tmp_path / "four.safetensors", "learning_rate": 1e-9}
    fewer = BloodCellCounter(**start).fit(smears.images, smears.counts[:, :2])
    rows = fewer.network_.regression.weight
    assert torch.allclose(rows, counter.network_.regression.weight[:2], atol=1e-5)
    segmenter = BloodCellSegmenter(**UNTRAINED, classes=FOUR).fit(smears.images, smears.masks)
    segmenter.save(tmp_path / "map.safetensors")
    start["pretrained"] = tmp_path / "map.safetensors"
    assert BloodCellCounter(**start).fit(smears.images, smears.counts[:, :2]).history_
    with raises(
        "counts must hold three numbers, not negative, for each of 4 images: white and red and "
        "platelet cells, in this order, NaN where they were not counted; got shape (4, 2)."
    ):
        counter.fit(smears.images, smears.counts[:, :2])
