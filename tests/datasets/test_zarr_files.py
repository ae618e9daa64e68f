"""Zarr: arrays and groups as they are written, and those that are hostile."""

import gzip
import json
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import zarr
from messages import raises
from numcodecs import get_codec

from bloodseg.datasets import open_slide
from bloodseg.datasets._bounds import PACKINGS

VERSIONS = [2, 3][: 1 if zarr.__version__.startswith("2.") else 2]
needs_zarr_3 = pytest.mark.skipif(3 not in VERSIONS, reason="zarr 2 does not read Zarr 3")

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


META = {
    "zarr_format": 2,
    "shape": [60, 80, 3],
    "chunks": [60, 80, 3],
    "dtype": "|u1",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": None,
}
META_3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [60, 80, 3],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [60, 80, 3]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes"}],
    "attributes": {},
}


def write_zarr(path, chunk=None, *, version=2, **metadata):
    """Write an array by hand, as zarr would not: its metadata, and its first chunk if any."""
    path.mkdir()
    name, meta = (".zarray", META) if version == 2 else ("zarr.json", META_3)
    (path / name).write_text(json.dumps(meta | metadata))
    if chunk is not None:
        numbers = ["0"] * len((meta | metadata)["shape"])
        file = path / (".".join(numbers) if version == 2 else "c/" + "/".join(numbers))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chunk)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


SHARDED = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [60, 80, 3],
        "codecs": [{"name": "bytes"}],
        "index_codecs": [{"name": "bytes"}],
    },
}
HOSTILE = {
    "filter": {"filters": [{"id": "pickle"}]},
    "compressor": {"compressor": {"id": "pickle"}},
    "two filters": {"filters": [{"id": "shuffle"}, {"id": "pickle"}]},
    "objects": {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    "json": {"filters": [{"id": "json2"}]},
    "raw lzma": {"compressor": {"id": "lzma", "format": 3}},
    "no name": {"compressor": {}},
    "3": {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]},
    "3 first": {"codecs": [{"name": "numcodecs.pickle"}, {"name": "bytes"}]},
    "3 text": {"data_type": "string", "codecs": [{"name": "vlen-utf8"}]},
    "3 alone": {"codecs": ["vlen-bytes"]},
    "3 twice": {"codecs": [{"name": "bytes"}, {"name": "gzip"}, {"name": "zstd"}]},
    "3 transformers": {"storage_transformers": [{"name": "pickle"}]},
    **{
        f"sharding, {where}": {
            "codecs": [
                SHARDED
                | {
                    "configuration": SHARDED["configuration"]
                    | {where: [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}
                }
            ]
        }
        for where in ("codecs", "index_codecs")
    },
    "packed shards": {"codecs": [SHARDED, {"name": "gzip"}]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_codecs_that_may_run_code_are_refused_before_any_is_called(tmp_path, monkeypatch, kind):
    from numcodecs import pickles

    def decode(self, buf, out=None):
        return pickle.loads(bytes(buf))

    monkeypatch.setattr(pickles.Pickle, "decode", decode)
    mark = tmp_path / "executed"
    version = 3 if "3" in kind or "shard" in kind else 2
    chunk = pickle.dumps(Evil(str(mark)))
    write_zarr(tmp_path / "a.zarr", chunk, version=version, **HOSTILE[kind])
    with raises("a.zarr cannot be read as an image: "):
        open_slide(tmp_path / "a.zarr")
    assert not mark.exists()


GZIP = {"name": "gzip", "configuration": {"level": 5}}


@needs_zarr_3
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["plain", "gzip", "blosc", "zstd", "shards"])
def test_zarr_3_as_it_is_written(tmp_path, kind, order):
    codecs = zarr.codecs
    options = {
        "plain": {},
        "gzip": {"compressors": codecs.GzipCodec()},
        "blosc": {"compressors": codecs.BloscCodec()},
        "zstd": {"compressors": codecs.ZstdCodec(checksum=True)},
        "shards": {"shards": (60, 80, 3), "chunks": (20, 40, 3)},
    }[kind]
    filters = [codecs.TransposeCodec(order=(2, 1, 0))] if order == "F" else []
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=PIXELS.shape,
        dtype="u1",
        zarr_format=3,
        filters=filters,
        **{"chunks": (16, 80, 3), **options},
    )
    array[:] = PIXELS
    slide = open_slide(tmp_path / "a.zarr")
    for rows in (slice(0, 60), slice(19, 41), slice(59, 60)):
        assert np.array_equal(slide[rows], PIXELS[rows])


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("packing", [None, *PACKINGS])
def test_zarr_2_as_it_is_written(tmp_path, packing, separator):
    delta = get_codec({"id": "delta", "dtype": "|u1"})
    codec = None if packing is None else get_codec({"id": packing})
    write_zarr(
        tmp_path / "a.zarr",
        chunks=[16, 32, 3],
        compressor=codec and codec.get_config(),
        filters=[delta.get_config()],
        dimension_separator=separator,
    )
    padded = np.zeros((64, 96, 3), np.uint8)
    padded[:60, :80] = PIXELS
    for row, column in np.ndindex(4, 3):
        chunk = padded[16 * row :, 32 * column :][:16, :32]
        chunk = delta.encode(np.ascontiguousarray(chunk).ravel())
        file = tmp_path / "a.zarr" / separator.join(map(str, (row, column, 0)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(chunk if codec is None else codec.encode(chunk)))
    assert np.array_equal(open_slide(tmp_path / "a.zarr")[5:50], PIXELS[5:50])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chunk_that_unpacks_to_more_than_its_shape(tmp_path, version):
    if version == 2:
        packed, how = zlib.compress(bytes(2**26)), {"compressor": {"id": "zlib", "level": 1}}
    else:
        packed, how = gzip.compress(bytes(2**26)), {"codecs": [{"name": "bytes"}, GZIP]}
    write_zarr(tmp_path / "a.zarr", packed, version=version, **how)
    with raises("it has more bytes than the 14,400 that its size and type make"):
        open_slide(tmp_path / "a.zarr")[:1]


@needs_zarr_3
def test_a_shard_with_more_than_its_shape(tmp_path):
    packed = gzip.compress(bytes(2**26))
    inner = SHARDED["configuration"] | {"codecs": [{"name": "bytes"}, GZIP]}
    for name, offset, length, text in (
        ("a", 0, len(packed), "it has more bytes than the 14,400"),
        ("b", 2**40, 9, "one of its shards is cut off."),
    ):
        shard = packed + struct.pack("<QQ", offset, length)
        codecs = [SHARDED | {"configuration": inner}]
        write_zarr(tmp_path / name, shard, version=3, codecs=codecs)
        with raises(text):
            open_slide(tmp_path / name)[:1]


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"chunks": [2**15, 2**15, 3]}, "its chunks have 3,221,225,472 bytes unpacked"),
        ({"chunks": [0, 80, 3]}, "its shape, and that of its chunks, must be above zero"),
        ({"shape": [2**20, 8, 3]}, "it declares 1048576 x 8 pixels and at most 524,288 a side"),
        ({"shape": [2**18, 2**18, 3]}, "it declares 262144 x 262144 pixels, but has only"),
        ({"dtype": [["a", "|u1"]]}, "its pixels must be numbers"),
        ({"shape": [60, 80, 2]}, "it must hold one image of rows, columns and"),
    ],
)
def test_zarr_metadata_that_cannot_be_worth_it(tmp_path, metadata, text):
    write_zarr(tmp_path / "a.zarr", **metadata)
    with raises(text):
        open_slide(tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", ["other file", "device", "pipe"])
def test_chunks_that_are_no_files_of_the_folder(tmp_path, kind):
    write_zarr(tmp_path / "a.zarr", bytes(14_400))
    chunk = tmp_path / "a.zarr" / "0.0.0"
    assert open_slide(tmp_path / "a.zarr")[:1].shape == (1, 80, 3)
    chunk.rename(tmp_path / "secret")
    if kind == "pipe":
        os.mkfifo(chunk)
    else:
        chunk.symlink_to("/dev/zero" if kind == "device" else tmp_path / "secret")
    with raises("its chunk 0.0.0 is no file of its folder."):
        open_slide(tmp_path / "a.zarr")[:1]


def group_of(path, attributes, *, version=2, **children):
    path.mkdir(exist_ok=True)
    if version == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": attributes}}
        (path / "zarr.json").write_text(json.dumps(group))
    for name, shape in children.items():
        grid = {"name": "regular", "configuration": {"chunk_shape": shape}}
        chunks = {"chunks": shape} if version == 2 else {"chunk_grid": grid}
        write_zarr(path / name, version=version, shape=shape, **chunks)


def scales(path="s0", axes="yxc", **more):
    return [{"axes": [{"name": name} for name in axes], "datasets": [{"path": path}], **more}]


@pytest.mark.parametrize("version", VERSIONS)
def test_groups_of_known_layouts(tmp_path, version):
    path = tmp_path / "a.zarr"
    shape = PIXELS.shape
    group_of(path, {"bioformats2raw.layout": 3}, version=version)
    group_of(path / "0", {"multiscales": scales()}, version=version, s0=shape)
    (path / "OME").mkdir()
    assert open_slide(path).shape == shape
    group_of(path / "1", {"multiscales": scales()}, version=version, s0=shape)
    with raises(f"Give the one you want, perhaps {path}/0, {path}/1."):
        open_slide(path)
    assert open_slide(path / "1").shape == shape
    group_of(tmp_path / "well", {"well": {"images": [{"path": "0"}]}}, version=version)
    group_of(tmp_path / "well/0", {"multiscales": scales()}, version=version, s0=shape)
    assert open_slide(tmp_path / "well").shape == shape


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({}, "Give the one you want, perhaps {path}/link, {path}/s0, {path}/s1, {path}/t."),
        ({"plate": {"wells": [{"path": "A/1"}]}}, "perhaps {path}/A/1/0."),
        ({"multiscales": scales("s0") + scales("s1")}, "perhaps {path}/s0, {path}/s1."),
        ({"multiscales": scales("../b.zarr")}, "the path '../b.zarr' leads out of its folder."),
        ({"multiscales": scales("link")}, "the path 'link' leads out of its folder."),
        ({"multiscales": scales("t")}, "its first level 't' is no array."),
        ({"multiscales": scales("s0", "zyx")}, "it must hold one image of rows, columns"),
        ({"multiscales": scales("s0", "yx")}, "it must hold one image of rows, columns"),
        ({"multiscales": [{}]}, "cannot be read as an image: "),
        ({"multiscales": 3}, "cannot be read as an image: "),
    ],
)
def test_groups_that_hold_no_one_image(tmp_path, attributes, text):
    path = tmp_path / "a.zarr"
    group_of(path, attributes, s0=PIXELS.shape, s1=(60, 80, 2))
    write_zarr(tmp_path / "b.zarr")
    (path / "link").symlink_to(tmp_path / "b.zarr")
    (path / "t").mkdir()
    (path / "t" / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".hidden").mkdir()
    with raises(text.format(path=path)):
        open_slide(path)


def test_an_empty_zarr_folder(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with raises("there is no Zarr array or group in"):
        open_slide(tmp_path / "a.zarr")


def test_axes_of_ome_zarr_are_what_they_are_called(tmp_path):
    first = np.ascontiguousarray(np.moveaxis(PIXELS[:, :4], -1, 0))
    for name, axes, chunk in (("a", "cyx", first), ("b", "xy", PIXELS[..., 0].T)):
        group_of(tmp_path / name, {"multiscales": scales(axes=axes)})
        shape = {"shape": chunk.shape, "chunks": chunk.shape}
        write_zarr(tmp_path / name / "s0", chunk.tobytes(), **shape)
    assert np.array_equal(open_slide(tmp_path / "a")[3:9], PIXELS[3:9, :4])
    attributes = (tmp_path / "a" / ".zattrs").read_text()
    named = attributes.replace('{"name": "c"}', '{"name": "stain", "type": "channel"}')
    (tmp_path / "a" / ".zattrs").write_text(named)
    assert np.array_equal(open_slide(tmp_path / "a")[3:9], PIXELS[3:9, :4])
    assert np.array_equal(open_slide(tmp_path / "b")[3:9][..., 0], PIXELS[3:9, :, 0])


def test_pixel_sizes_of_ome_zarr(tmp_path):
    axes = [{"name": "y", "unit": "nanometer"}, {"name": "x", "unit": "micrometer"}]
    level = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [200, 0.05]}]}
    whole = [{"type": "scale", "scale": [2, 2]}, {"type": "translation", "translation": [1, 1]}]
    multiscales = [{"axes": axes, "datasets": [level], "coordinateTransformations": whole}]
    group_of(tmp_path / "a", {"multiscales": multiscales}, s0=(60, 80))
    assert open_slide(tmp_path / "a").pixel_sides == pytest.approx((0.4, 0.1))
