"""Tiles: together the image, each once, and what they say blended without a seam."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodseg._images import STRIDE, blend_tiles
from bloodseg._images._tiling import cut_spans

sizes = st.integers(1, 400)
sides = st.sampled_from([64, 80, 128, 256])


class Recorder:
    """An image that says which of its rows are asked for, and of how many at a time."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.shape = pixels.shape
        self.most = 0

    def __getitem__(self, rows):
        self.most = max(self.most, rows.stop - rows.start)
        return self.pixels[rows]


@settings(max_examples=60, deadline=None)
@given(length=sizes, side=sides, share=st.sampled_from([4, 3, 2]))
def test_spans_cover_an_axis_in_turn(length, side, share):
    overlap = side // share // STRIDE * STRIDE
    tiles = cut_spans(length, side, overlap)
    assert tiles[0].start == tiles[0].first == 0
    assert tiles[-1].stop == tiles[-1].last == length
    for tile in tiles:
        assert tile.start % STRIDE == 0
        assert tile.stop - tile.start <= side
        assert tile.start <= tile.first < tile.last <= tile.stop
        assert min(tile.last + tile.fade, length) <= tile.stop
    first = tiles[0].stop
    for before, after in pairwise(tiles):
        assert before.stop - before.start == first
        assert before.stop - after.start >= overlap
        assert after.first == before.last
        assert after.last - after.first >= after.fade  # no third tile where two fade
        assert after.start <= after.first - (overlap - STRIDE) // 4  # surroundings


@settings(max_examples=40, deadline=None)
@given(height=sizes, width=sizes, side=sides)
def test_what_tiles_agree_on_comes_back(height, width, side):
    image = np.random.default_rng(height * width).random((height, width)).astype(np.float32)
    values = np.full((2, height, width), np.nan, np.float32)

    def predict(tile):
        assert max(tile.shape) <= side
        return np.stack([tile, -tile]), tile.shape

    rows_before = 0
    for rows, columns, block, shape in blend_tiles(image, predict, side=side, overlap=side // 4):
        assert np.isnan(values[:, rows, columns]).all()
        values[:, rows, columns] = block
        assert rows.start >= rows_before
        rows_before = rows.start
        assert block.dtype == np.float32
        assert len(shape) == 2
    assert np.allclose(values, [image, -image], atol=1e-6)


def test_a_step_between_tiles_becomes_a_slope():
    tiles = iter([0.0, 1.0])

    def predict(tile):
        return np.full((1, *tile.shape), next(tiles)), None

    blocks = [
        block for _, _, block, _ in blend_tiles(np.zeros((32, 112)), predict, side=64, overlap=16)
    ]
    across = np.concatenate(blocks, axis=2)[0, 0]
    assert across[0] == 0
    assert across[-1] == 1
    assert (np.diff(across) >= 0).all()
    assert np.diff(across).max() < 0.25


def test_strips_of_a_tile_are_read_and_no_more():
    image = Recorder(np.zeros((1000, 96), np.float32))
    for _ in blend_tiles(image, lambda tile: (tile[np.newaxis], None), side=64, overlap=16):
        pass
    assert image.most == 64


def test_an_error_of_a_tile_comes_out():
    def predict(tile):
        raise ValueError("no such tile")

    with pytest.raises(ValueError, match="no such tile"):
        list(blend_tiles(np.zeros((99, 99)), predict, side=64, overlap=16))
