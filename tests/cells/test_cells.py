"""Single cells of class maps: found, counted, the same whole and in blocks."""

import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from bloodseg._images import rescale_labels
from bloodseg.cells import Cells, find_cells
from bloodseg.cells._blocks import KeptBlocks, blocks_of_cells
from bloodseg.cells._instances import assemble, count_cells
from bloodseg.cells._scale import Radii, typical_radii, typical_radius
from bloodseg.cells._shapes import Regions, distance_inside
from bloodseg.cells._split import _flooded, split_cells
from bloodseg.datasets import make_smears

WHITE, RED = 1, 2


def discs(shape, *circles):
    """Return a mask of discs, each (y, x, radius)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.any([(y - cy) ** 2 + (x - cx) ** 2 <= r**2 for cy, cx, r in circles], axis=0)


@pytest.fixture(scope="module")
def smear():
    return make_smears(
        1, image_size=(300, 260), random_state=4, red_cell_diameter=20, white_cells=(3, 4)
    )


@pytest.mark.parametrize("distance", [28, 32, 38, 41])
@pytest.mark.parametrize("angle", [0, 0.4, 1.2])
def test_two_overlapping_discs_are_two_cells(distance, angle):
    y, x = np.array([np.sin(angle), np.cos(angle)]) * distance / 2
    mask = discs((100, 120), (50 - y, 60 - x, 20), (50 + y, 60 + x, 20))
    cells = find_cells(RED * mask, red_cell_diameter=40)
    assert cells.counts == {"white": 0, "red": 2}
    areas = np.bincount(cells.labels.ravel())[1:]
    assert mask.sum() <= areas.sum() <= mask.sum() + 4  # a pixel or two between touching discs
    assert areas.min() > 0.9 * areas.max()


def test_a_ring_of_discs():
    ring = [(100 + 35 * np.sin(a), 100 + 35 * np.cos(a), 19) for a in np.arange(6) * np.pi / 3]
    assert find_cells(RED * discs((200, 200), *ring)).counts["red"] == 6


def test_one_cell_stays_one():
    for radius in (6, 13, 40, 90):
        side = 3 * radius
        cells = find_cells(RED * discs((side, side), (side / 2, side / 2, radius)))
        assert len(cells) == 1
        assert not cells.touches_border.any()


def test_pallor_is_filled_and_a_gap_between_cells_is_not():
    cell = discs((100, 100), (50, 50, 22))
    hollow = cell & ~discs((100, 100), (50, 50, 5))
    cells = find_cells(RED * hollow, red_cell_diameter=44)
    assert np.array_equal(cells.labels > 0, cell)
    around = [(100 + 50 * np.sin(a), 100 + 50 * np.cos(a), 26) for a in np.arange(6) * np.pi / 3]
    ring = discs((200, 200), *around)
    assert not find_cells(RED * ring).labels[100, 100]


def test_lobes_close_together_are_one_white_cell_and_touching_cells_two():
    reds = [(30, x, 20) for x in (30, 90, 150)]
    class_map = RED * discs((300, 300), *reds)
    class_map[discs(class_map.shape, (150, 80, 12), (150, 106, 12))] = WHITE  # a gap of a pixel
    class_map[discs(class_map.shape, (240, 80, 34), (240, 140, 34))] = WHITE  # two that overlap
    assert find_cells(class_map).counts == {"white": 3, "red": 3}


def test_classes_do_not_take_each_others_pixels(smear):
    class_map = smear.masks[0]
    cells = find_cells(class_map)
    of_pixel = np.concatenate([[0], cells.classes])[cells.labels]
    assert set(zip(of_pixel[cells.labels > 0], class_map[cells.labels > 0], strict=True)) <= {
        *((WHITE, WHITE), (RED, RED), (WHITE, 0), (RED, 0)),
    }


def test_a_hole_of_a_white_cell_in_a_ring_of_red_is_the_white_cells():
    """Both would fill it: the white cell as its own hole, the ring as its pallor."""
    shape = (400, 400)
    middle = (230, 200)
    class_map = RED * discs(shape, (50, 60, 27), (50, 140, 27), (*middle, 95))
    class_map[discs(shape, (*middle, 62))] = 0
    class_map[discs(shape, (*middle, 48))] = WHITE
    class_map[discs(shape, (*middle, 12))] = 0
    cells = find_cells(class_map, red_cell_diameter=54)
    assert cells.counts == {"white": 1, "red": 3}
    assert np.array_equal(cells.labels == 1, discs(shape, (*middle, 48)))


def test_specks_go_in_relation_to_the_cells():
    for scale in (1, 2, 3):
        side = 120 * scale
        cells = [(30 * scale, 30 * scale, 12 * scale), (80 * scale, 80 * scale, 12 * scale)]
        speck = (30 * scale, 90 * scale, 2.5 * scale)
        class_map = RED * discs((side, side), *cells, speck)
        assert find_cells(class_map).counts["red"] == 2


def test_labels_are_numbered_white_first_and_each_is_connected(smear):
    cells = find_cells(smear.masks[0])
    assert isinstance(cells, Cells)
    assert cells.labels.dtype == np.int32
    assert np.array_equal(np.unique(cells.labels), np.arange(len(cells) + 1))
    assert np.array_equal(cells.classes, np.sort(cells.classes))
    n_white = int(smear.counts[0, 0])
    assert cells.counts == {"white": n_white, "red": len(cells) - n_white}
    for number in range(1, len(cells) + 1):
        assert label(cells.labels == number).max() == 1


def test_counts_of_drawn_smears_are_near_the_truth():
    for diameter in (12, 24, 40):
        smears = make_smears(4, image_size=8 * diameter, random_state=1, red_cell_diameter=diameter)
        found = [find_cells(mask).counts for mask in smears.masks]
        assert [each["white"] for each in found] == smears.counts[:, 0].tolist()
        error = sum(each["red"] for each in found) - smears.counts[:, 1].sum()
        assert abs(error) <= 0.08 * smears.counts[:, 1].sum()


@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, np.transpose])
def test_a_turned_image_has_the_same_cells(smear, turn):
    cells, turned = find_cells(smear.masks[0]), find_cells(turn(smear.masks[0]))
    # Where scores tie, or a half is rounded, a mirrored image may differ by a cell or two.
    assert abs(len(cells) - len(turned)) <= 2
    assert ((turn(cells.labels) > 0) == (turned.labels > 0)).mean() > 0.999


def test_a_translated_image_has_the_same_cells():
    class_map = RED * discs((100, 160), (50, 50, 20), (50, 84, 20), (30, 120, 18))
    moved = np.roll(class_map, (7, 5), axis=(0, 1))
    cells = find_cells(class_map)
    # Equal scores are told apart by their place.
    assert (np.roll(cells.labels, (7, 5), axis=(0, 1)) == find_cells(moved).labels).mean() > 0.998


def test_an_empty_map_has_no_cells():
    cells = find_cells(np.zeros((20, 30), int))
    assert len(cells) == 0
    assert cells.labels.shape == (20, 30)
    assert not cells.labels.any()
    assert cells.counts == {"white": 0, "red": 0}


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 3), (40, 2)])
def test_tiny_maps(shape):
    for value in (WHITE, RED):
        cells = find_cells(np.full(shape, value))
        assert len(cells.classes) == cells.labels.max()


def test_a_sheet_of_merged_cells_is_divided_by_their_usual_size():
    class_map = np.zeros((400, 700), np.uint8)
    class_map[discs(class_map.shape, *((50 + 60 * i, 50, 20) for i in range(6)))] = RED
    class_map[40:360, 150:650] = RED
    cells = find_cells(class_map, red_cell_diameter=40)
    expected = 320 * 500 / (np.pi * 20**2)
    assert 0.7 * expected < len(cells) - 6 < 1.3 * expected


def test_scores_are_mean_probabilities():
    class_map = RED * discs((100, 100), (30, 30, 15), (70, 70, 15))
    confidence = np.where(np.arange(100)[:, np.newaxis] < 50, 0.5, 0.9) * np.ones((1, 100))
    expected = [0.5, 0.9]
    assert find_cells(class_map, confidence).scores == pytest.approx(expected)
    in_255ths = np.rint(confidence * 255).astype(np.uint8)
    assert find_cells(class_map, in_255ths).scores == pytest.approx(expected, abs=1 / 255)
    assert np.isnan(find_cells(class_map).scores).all()


def test_cells_at_the_border_are_flagged():
    class_map = RED * discs((100, 100), (50, 4, 15), (50, 50, 15), (97, 80, 15))
    cells = find_cells(class_map)
    assert cells.touches_border.tolist() == [True, False, True]
    assert cells.sides.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    corner = find_cells(RED * discs((100, 100), (4, 95, 15))).sides
    assert corner.tolist() == [[True, False, False, True]]  # top, left, bottom, right


# ---------------------------------------------------------------- scale


@pytest.mark.parametrize("diameter", [10, 24, 60])
def test_the_typical_radius_is_found(diameter):
    smears = make_smears(3, image_size=7 * diameter, random_state=0, red_cell_diameter=diameter)
    for mask in smears.masks:
        assert typical_radius(mask) == pytest.approx(diameter / 2, rel=0.2)


def test_the_scale_does_not_depend_on_rough_outlines(rng):
    mask = make_smears(1, image_size=280, random_state=0, red_cell_diameter=40).masks[0] == RED
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 2) * 1.5
    rough = ndimage.gaussian_filter(mask.astype(float), 2) + noise > 0.5
    assert typical_radius(RED * rough) == pytest.approx(typical_radius(RED * mask), rel=0.05)


@pytest.mark.parametrize("diameter", [150, 480])
def test_cells_of_any_size_are_found_where_they_are_expected(diameter):
    unit = diameter / 40
    small = make_smears(1, image_size=160, random_state=0, red_cell_diameter=40).masks[0]
    large = rescale_labels(small, unit)
    rng = np.random.default_rng(0)
    large[rng.random(large.shape) < 1e-4] = RED  # specks are no cells, whatever they would tell
    radii = typical_radii(large, expected_diameter=diameter)
    assert radii.red == pytest.approx(unit * typical_radius(small), rel=0.1)
    assert count_cells(KeptBlocks(large, radii)) == count_cells(
        KeptBlocks(small, typical_radii(small))
    )


def test_a_field_of_one_class_tells_nothing():
    assert typical_radius(np.full((700, 600), RED)) is None
    half = np.zeros((700, 600), int)
    half[:, :300] = RED
    assert len(find_cells(half)) == 0


def test_white_cells_alone_tell_the_scale():
    assert typical_radius(WHITE * discs((200, 200), (100, 100, 34))) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("first", [0, 2500])
def test_the_scale_of_a_slide_whose_cells_lie_at_one_end(monkeypatch, first):
    monkeypatch.setattr("bloodseg.cells._scale._ENOUGH", 2**18)
    monkeypatch.setattr("bloodseg.cells._scale._ENOUGH_OF_CLASS", 2**14)
    small = make_smears(1, image_size=300, random_state=0, red_cell_diameter=40).masks[0]
    class_map = np.zeros((5000, 300), np.uint8)
    class_map[first : first + 2400] = np.tile(small, (8, 1))
    for expected in (None, 40):
        radii = typical_radii(class_map, expected)
        assert radii.red == pytest.approx(typical_radii(small).red, rel=0.05)


def test_specks_at_the_edge_of_a_slide_do_not_tell_its_scale(monkeypatch):
    monkeypatch.setattr("bloodseg.cells._scale._ENOUGH", 2**18)
    monkeypatch.setattr("bloodseg.cells._scale._ENOUGH_OF_CLASS", 2**14)
    small = make_smears(1, image_size=300, random_state=0, red_cell_diameter=40).masks[0]
    class_map = np.zeros((5000, 300), np.uint8)
    class_map[100:4000:40, 150:156] = class_map[101:4000:40, 150:156] = RED
    class_map[4100:] = np.tile(small, (3, 1))
    assert typical_radii(class_map, 40).red == pytest.approx(typical_radii(small).red, rel=0.1)


# ---------------------------------------------------------------- blocks


@settings(max_examples=12, deadline=None)
@given(side=st.integers(40, 320), seed=st.integers(0, 3), diameter=st.sampled_from([12, 20]))
def test_cells_in_blocks_are_those_of_the_whole(side, seed, diameter):
    class_map = make_smears(
        1, image_size=(170, 230), random_state=seed, red_cell_diameter=diameter
    ).masks[0]
    radii = typical_radii(class_map)
    (whole,) = blocks_of_cells(class_map, radii, side=10**6)
    blocks = list(blocks_of_cells(class_map, radii, side=side))
    keys = [
        (int(kind), *seed)
        for block in blocks
        for kind, seed in zip(
            block.split.classes[block.owned],
            block.split.seeds[block.owned].tolist(),
            strict=True,
        )
    ]
    expected = zip(whole.split.classes.tolist(), whole.split.seeds.tolist(), strict=True)
    assert sorted(keys) == sorted((kind, *seed) for kind, seed in expected)
    covered = np.zeros(class_map.shape, int)
    for block in blocks:
        covered[block.place] += 1
    assert (covered == 1).all()


def test_labels_put_together_from_blocks(smear, monkeypatch):
    whole = find_cells(smear.masks[0], smear.masks[0] / 2)
    monkeypatch.setattr(blocks_of_cells, "__kwdefaults__", {"side": 90})
    blocks = find_cells(smear.masks[0], smear.masks[0] / 2)
    assert (whole.labels == blocks.labels).mean() > 0.9999
    assert np.array_equal(whole.classes, blocks.classes)
    assert np.array_equal(whole.sides, blocks.sides)
    assert np.array_equal(whole.in_frame, blocks.in_frame)
    assert whole.scores == pytest.approx(blocks.scores)
    counts = count_cells(KeptBlocks(smear.masks[0], typical_radii(smear.masks[0])))
    assert counts == whole.counts


@pytest.mark.parametrize("side", [90, 1000])
def test_cells_are_split_once_however_often_they_are_asked_for(smear, monkeypatch, side):
    monkeypatch.setattr(blocks_of_cells, "__kwdefaults__", {"side": side})
    blocks = KeptBlocks(smear.masks[0], typical_radii(smear.masks[0]))
    first = assemble(blocks, smear.masks[0] / 2)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr("bloodseg.cells._blocks.split_cells", never)
    again = assemble(blocks, smear.masks[0] / 2)
    for name in ("labels", "classes", "scores", "sides", "in_frame"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert count_cells(blocks) == first.counts


@pytest.mark.parametrize(
    ("shape", "n_blocks", "core"),
    [
        ((3000, 4000), 1, (3000, 4000)),
        ((4100, 4100), 4, (2050, 2050)),
        ((17000, 1000), 8, (2125, 1000)),
    ],
)
def test_a_photo_is_one_block_and_a_slide_is_several_of_one_size(shape, n_blocks, core):
    class_map = np.zeros(shape, np.uint8)
    blocks = list(blocks_of_cells(class_map, Radii(red=9.0, white=15.0)))
    assert len(blocks) == n_blocks
    covered = np.zeros(shape, bool)
    for block in blocks:
        assert block.class_map[block.core].shape == core
        assert not covered[block.place].any()
        covered[block.place] = True
    assert covered.all()


@pytest.mark.parametrize("configured", [False, True])
def test_blocks_are_split_side_by_side(smear, monkeypatch, configured):
    radii, threads, split = typical_radii(smear.masks[0]), [], split_cells
    monkeypatch.setattr(blocks_of_cells, "__kwdefaults__", {"side": 90})

    def noted(*given, **more):
        threads.append(threading.get_ident())
        return split(*given, **more)

    expected = assemble(KeptBlocks(smear.masks[0], radii), None)
    monkeypatch.setattr("bloodseg.cells._blocks.split_cells", noted)
    if configured:
        with parallel_config("threading", n_jobs=2):
            found = assemble(KeptBlocks(smear.masks[0], radii), None)
    else:
        found = assemble(KeptBlocks(smear.masks[0], radii, n_threads=2), None)
    assert np.array_equal(found.labels, expected.labels)
    assert threading.get_ident() not in threads
    assert len(threads) == 9


def test_blocks_that_were_not_all_asked_for_are_not_kept(smear, monkeypatch):
    monkeypatch.setattr(blocks_of_cells, "__kwdefaults__", {"side": 90})
    blocks = KeptBlocks(smear.masks[0], typical_radii(smear.masks[0]))
    next(iter(blocks))
    assert count_cells(blocks) == find_cells(smear.masks[0]).counts


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"class_map": np.full((4, 4), 3)}, "class_map[0] must hold the labels 0 to 2"),
        ({"class_map": np.zeros((4, 4, 3))}, "class_map[0] must have shape (H, W)"),
        (
            {"confidence": np.zeros((4, 4, 3))},
            "confidence must have the class map's shape (4, 4); got (4, 4, 3). "
            "Of probabilities (H, W, 3), pass .max(axis=-1).",
        ),
        (
            {"confidence": np.full((4, 4), 90.0)},
            "confidence must be floating point in [0, 1], or uint8 in 255ths; got dtype float64, "
            "90 to 90. Divide by the number that stands for certainty.",
        ),
        ({"confidence": np.full((4, 4), 200)}, "got dtype int64, 200 to 200."),
        ({"confidence": np.full((4, 4), np.nan)}, "got dtype float64, nan to nan."),
        ({"confidence": np.full((4, 4), "high")}, "got dtype <U4."),
        (
            {"red_cell_diameter": 2},
            "red_cell_diameter must be a number of pixels from 4 to 1000; got 2. Rescale",
        ),
        ({"red_cell_diameter": "big"}, "from 4 to 1000; got 'big'."),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        find_cells(**{"class_map": np.zeros((4, 4), int), **arguments})


@pytest.mark.parametrize("seed", range(3))
def test_a_watershed_by_regions_is_that_of_all_at_once(seed):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 120, 140)), (0, 3, 3))
    mask = noise[0] > -0.02
    score = noise[1].astype(np.float32)
    peaks = mask & (ndimage.maximum_filter(score, 9) == score)
    markers = np.zeros(mask.shape, np.int32)
    markers[peaks] = 1 + np.arange(np.count_nonzero(peaks))
    regions = Regions.of(mask)
    per_region = np.bincount(regions.labels[peaks], minlength=len(regions.areas))[1:]
    assert per_region.min() == 0
    assert (per_region == 1).any()
    assert per_region.max() > 1
    found = _flooded(score, markers, regions)
    np.testing.assert_array_equal(found, watershed(-score, markers, mask=mask))


def test_a_notebook_shows_outlines_and_counts():
    smear = make_smears(1, image_size=128, random_state=0, red_cell_diameter=30)
    cells = find_cells(smear.masks[0])
    shown = cells._repr_html_()
    assert shown.count("M") >= len(cells) > 0
    assert f"red cells: {cells.counts['red']}" in shown
    assert "128 &times; 128 pixels" in shown
    n_white, n_red = cells.counts["white"], cells.counts["red"]
    assert repr(cells) == f"Cells({n_white} white, {n_red} red, in 128 x 128 pixels)"
    named = find_cells((smear.masks[0] == 2) * 1, classes=("background", "a<b>x"))
    assert "a&lt;b&gt;x" in named._repr_html_()
    assert "<b>x" not in named._repr_html_()
    assert "0 cells" in find_cells(np.zeros((5, 5), int))._repr_html_()


def test_a_notebook_is_not_filled_with_outlines(monkeypatch):
    monkeypatch.setattr("bloodseg.cells._html.MOST_OUTLINED", 0)
    monkeypatch.setattr("bloodseg.cells._export.outlines_of", None)  # not even looked for
    square = np.zeros((40, 40), int)
    square[10:30, 10:30] = 2
    shown = find_cells(square)._repr_html_()
    assert "Too many cells to outline here: 1." in shown
    assert "<b>1 cell</b>" in shown
    assert "<path" not in shown


def test_scores_are_those_of_pixels_of_the_cell_s_class():
    ring = discs((60, 60), (30, 30, 15)) & ~discs((60, 60), (30, 30, 3))
    cells = find_cells(RED * ring, ring.astype(float), red_cell_diameter=30)
    assert cells.labels[30, 30] == 1  # pallor that is missing, of no confidence in red
    assert cells.scores.tolist() == [1]


@pytest.mark.parametrize("side", range(4))
def test_a_cell_touches_the_side_of_the_picture_that_cuts_it(side):
    beyond = [np.s_[:20], np.s_[:, :20], np.s_[40:], np.s_[:, 40:]][side]
    class_map, outside = np.zeros((60, 60), np.uint8), np.zeros((60, 60), bool)
    class_map[20:40, 20:40], outside[beyond] = RED, True
    cells = assemble(KeptBlocks(class_map, Radii(red=10.0, white=17.0), outside=outside), None)
    assert cells.sides.tolist() == [[each == side for each in range(4)]]


def test_distances_go_on_behind_the_edge_of_the_picture_and_are_none_there():
    mask, outside = np.zeros((2, 40, 40), bool)
    mask[:, :20], outside[:, 20:] = True, True
    distance = distance_inside(mask, 50, outside)
    assert distance[20, 19] == 50
    assert (distance[:, 20:] == 0).all()


def test_a_few_red_specks_beside_white_cells_are_no_ruler():
    shape = (200, 200)
    white = discs(shape, *((y, x, 25) for y in (50, 150) for x in (50, 150)))
    class_map = np.where(white, WHITE, RED * discs(shape, (100, 100, 4), (100, 20, 4)))
    radii = typical_radii(class_map)
    assert radii.white == pytest.approx(25, abs=1)
    assert radii.red == pytest.approx(25 / 1.7, abs=1)
