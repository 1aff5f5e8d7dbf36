"""Pixels into a slot: the bytes of ComfyUI's formula, for every type and layout."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from luna_farm.errors import InvalidRequest
from luna_farm_client import device
from luna_farm_client.pixels import PixelInfo, copy_into, copy_together, describe, with_alpha


def _comfyui(x):
    return np.clip(255.0 * x, 0, 255).astype(np.uint8)


def _bytes(x):
    out = bytearray(describe(x).nbytes)
    copy_into(x, memoryview(out))
    return np.frombuffer(out, np.uint8)


def _same(x, expected):
    assert np.array_equal(_bytes(x), np.ascontiguousarray(expected).reshape(-1))


FLOATS = {np.float16: 16, np.float32: 32, np.float64: 64}
SHAPES = [(5, 7), (5, 7, 1), (5, 7, 3), (2, 5, 7, 4), (1, 1, 3), (3, 400, 301, 3)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_floats_become_comfyuis_bytes(dtype, shape):
    x = np.random.default_rng(1).uniform(-0.1, 1.1, shape).astype(dtype)
    _same(x, _comfyui(x))


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_level_and_its_neighbours_are_truncated_alike(dtype):
    levels = (np.arange(256) / 255).astype(dtype)
    up, down = np.nextafter(levels, dtype(2)), np.nextafter(levels, dtype(-1))
    x = np.stack([levels, up, down], axis=1)[None]
    _same(x, _comfyui(x))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_number_near_the_range_and_infinities(data):
    dtype = data.draw(st.sampled_from([*FLOATS]))
    elements = st.floats(-8, 8, width=FLOATS[dtype]) | st.sampled_from([np.inf, -np.inf])
    x = data.draw(hnp.arrays(dtype, (3, 5, 3), elements=elements))
    with np.errstate(over="ignore"):
        expected = _comfyui(x)
    _same(x, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f2", ">f4", ">f8"])
def test_layouts(dtype):
    rng = np.random.default_rng(2)
    base = (rng.random((3, 64, 80, 4)) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    views = {
        "channels first in memory": np.ascontiguousarray(base.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)[
            ..., :3
        ],
        "cropped": base[:, 3:50, 5:71],
        "every second": base[:, ::2, ::2],
        "mirrored": base[:, ::-1, ::-1],
        "alpha cut off": base[..., :3],
        "one channel": base[..., 1:2],
        "transposed": base[0].transpose(1, 0, 2),
        "broadcast": np.broadcast_to(base[0, :1, :, :3], (9, 80, 3)),
        "flat": base[0, :, :, 0].T,
    }
    for x in views.values():
        _same(x, x if dtype == np.uint8 else _comfyui(x.astype(x.dtype.newbyteorder("="))))


def test_rows_longer_than_a_block():
    x = np.random.default_rng(3).random((2, 100_000, 3), dtype=np.float32)
    _same(x, _comfyui(x))
    strided = x[:, ::-1]
    _same(strided, _comfyui(strided))


@pytest.mark.parametrize("layout", ["plain", "channels first"])
def test_no_full_size_temporary(layout):
    x = np.zeros((2048, 2048, 3), np.float32)
    if layout == "channels first":
        x = np.zeros((3, 2048, 2048), np.float32).transpose(1, 2, 0)
    out = memoryview(bytearray(x.size))
    copy_into(x, out)
    tracemalloc.start()
    copy_into(x, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.size / 8  # a full-size temporary has at least x.size bytes


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinities_are_clipped_and_counted(dtype):
    x = np.array([[np.inf, -np.inf, 0.5]], dtype)
    _same(x, [255, 0, 127])
    assert copy_into(x, memoryview(bytearray(3))) == {0: 2}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, 1_000, -1])
def test_nan_becomes_black_and_is_counted_for_its_image_alone(dtype, place):
    x = np.full((3, 100, 100, 3), 0.5, dtype)
    x[1].reshape(-1)[place] = np.nan
    for given_ in (x, x[:, :, ::-1], np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)):
        out = bytearray(given_.size)
        assert copy_into(given_, memoryview(out)) == {1: 1}
        assert sorted(set(out)) == [0, 127]
        assert out.count(0) == 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("wire", ["uint8", "uint16"])
def test_floats_far_above_1_are_refused_with_the_range(dtype, wire):
    x = np.zeros((64, 64, 3), dtype)
    x[40, 2, 1] = 255
    with pytest.raises(InvalidRequest, match=r"floats up to 255 are not allowed; allowed: 0 to 1.*by 255"):
        copy_into(x, memoryview(bytearray(x.size * (1 if wire == "uint8" else 2))), wire)
    x[40, 2, 1] = -255  # far below is clipped: an image of range 0..255 has no negative values
    x[3, 3, 1] = 1.5
    copy_into(x, memoryview(bytearray(x.size * (1 if wire == "uint8" else 2))), wire)


def _at(x, dtype):
    out = bytearray(x.size * np.dtype(dtype).itemsize)
    flaws = copy_into(x, memoryview(out), dtype)
    return np.frombuffer(out, dtype).reshape(x.shape), flaws


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_rounded_to_16_bits(dtype):
    x = np.random.default_rng(4).uniform(-0.1, 1.1, (2, 40, 30, 3)).astype(dtype)
    expected = np.floor(np.clip(x.astype(np.float32) * np.float32(65535) + np.float32(0.5), 0, 65535))
    for given_, then in ((x, expected), (x[:, ::-1, 1:], expected[:, ::-1, 1:])):
        got, flaws = _at(given_, "uint16")
        assert np.array_equal(got, then.astype(np.uint16))
        assert flaws == {}


def test_each_16_bit_level_survives_its_float():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got, _ = _at(levels.astype(np.float32) / np.float32(65535), "uint16")
    assert np.array_equal(got, levels)


@pytest.mark.parametrize("wire", ["float16", "float32"])
def test_floats_beyond_the_range_survive_where_floats_are_stored(wire):
    x = np.array([[-3.5, 0.25, 1000.0, np.nan, np.inf, -np.inf, 70000.0]], np.float32)
    got, flaws = _at(x, wire)
    largest = np.finfo(wire).max
    top = largest if wire == "float16" else 70000.0
    assert got.tolist() == [[-3.5, 0.25, 1000.0, 0, largest, -largest, top]]
    assert flaws == {0: 3}


def test_integers_travel_as_they_are():
    deep = np.arange(5 * 7 * 3, dtype=np.uint16).reshape(5, 7, 3) * 600
    got, flaws = _at(deep[::-1], "uint16")
    assert np.array_equal(got, deep[::-1])
    assert flaws == {}
    assert describe(deep) == PixelInfo(1, 5, 7, 3, 210, "uint16")


def test_bool_is_black_and_white():
    x = np.array([[True, False, True]])
    _same(x, [255, 0, 255])
    _same(x[:, ::-1], [255, 0, 255])


@pytest.mark.parametrize(
    ("bit_depth", "formats", "expected"),
    [
        ("auto", ("png",), "uint8"),
        ("auto", ("exr",), "float32"),
        ("auto", ("png", "exr"), "float32"),
        ("16", ("png", "jpeg"), "uint16"),
        ("16", ("jpeg",), "uint8"),
        ("half", ("exr",), "float16"),
        ("float", ("tiff",), "float32"),
    ],
)
def test_floats_travel_in_what_the_deepest_file_needs(bit_depth, formats, expected):
    x = np.zeros((4, 5, 3), np.float32)
    info = describe(x, bit_depth=bit_depth, formats=formats)
    assert (info.dtype, info.nbytes) == (expected, 60 * np.dtype(expected).itemsize)
    assert describe(x.astype(np.uint8), bit_depth=bit_depth, formats=formats).dtype == "uint8"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5), PixelInfo(1, 4, 5, 1, 20)),
        ((4, 5, 3), PixelInfo(1, 4, 5, 3, 60)),
        ((2, 4, 5, 4), PixelInfo(2, 4, 5, 4, 160)),
    ],
)
def test_describe(shape, expected):
    assert describe(np.zeros(shape, np.uint8)) == expected


@pytest.mark.parametrize(
    "dtype", ["int32", "int64", "int16", "uint32", "object", "complex64", "longdouble", "U1", "M8[s]"]
)
def test_other_types_are_refused(dtype):
    with pytest.raises(
        InvalidRequest, match=r"pixels\.dtype: .*allowed: uint8 \(0\.\.255\), uint16 \(0\.\.65535\), bool"
    ):
        describe(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((), r"\[\]"),
        ((5,), r"\[5\]"),
        ((1, 2, 3, 4, 3), r"\[1, 2, 3, 4, 3\]"),
        ((4, 4, 2), "C = 1, 2 .gray and alpha., 3 or 4"),
        ((8, 9, 5), r"3 or 4; of more channels pixels\[..., :3\] are an image"),
        ((3, 64, 64), r"channels come last, so this may need \.movedim"),
        ((2, 3, 64, 64), "channels come last"),
        ((0, 4, 3), "at least one pixel"),
        ((0, 4, 4, 3), "at least one image"),
    ],
)
def test_other_shapes_are_refused(shape, said):
    with pytest.raises(InvalidRequest, match=rf"pixels\.shape: .*{said}"):
        describe(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("thing", [None, [[1, 2], [3, 4]], b"abc", 5, "image.png"])
def test_other_things_are_refused(thing):
    with pytest.raises(InvalidRequest, match="a numpy array or torch tensor"):
        describe(thing)


def test_a_pil_image_is_told_the_way():
    from PIL import Image

    with pytest.raises(InvalidRequest, match=r"numpy\.asarray\(image\)"):
        describe(Image.new("RGB", (2, 2)))


@pytest.mark.parametrize(
    "view", [memoryview(bytearray(11)), memoryview(bytes(12)), memoryview(bytearray(24))[::2]]
)
def test_a_view_that_does_not_fit_is_a_mistake_of_the_caller(view):
    with pytest.raises(ValueError, match="writable view of just that length"):
        copy_into(np.zeros((2, 2, 3), np.uint8), view)


def test_numpy_alone_never_loads_torch():
    code = """
import sys, numpy as np
from luna_farm_client.device import register_cuda, unregister_cuda
from luna_farm_client.pixels import copy_into
out = memoryview(bytearray(12))
copy_into(np.zeros((2, 2, 3), np.float32), out)
assert not register_cuda(out)
unregister_cuda(out)
print("torch" in sys.modules, "PIL" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is an extra; tensors cannot be tested without it")


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["plain", "channels first", "gradient"])
def test_tensors_become_comfyuis_bytes(torch, name, layout):
    x = torch.rand(2, 40, 33, 3).to(getattr(torch, name))
    if layout == "channels first":
        x = torch.rand(2, 3, 40, 33).to(getattr(torch, name)).movedim(1, -1)
    if layout == "gradient":
        x.requires_grad_()
    _same(x, _comfyui(x.detach().numpy()))


def test_bfloat16_is_computed_in_float32(torch):
    x = torch.linspace(-0.1, 1.1, 3 * 50 * 40).bfloat16().view(3, 50, 40).movedim(0, -1)
    _same(x, _comfyui(x.float().numpy()))
    _same(x.contiguous(), _comfyui(x.float().numpy()))


def test_a_tensor_that_autograd_follows_and_one_that_is_negated_lazily(torch):
    x = torch.rand(4, 5, 3)
    _same(x.clone().requires_grad_(), _comfyui(x.numpy()))
    lazily = torch.conj(torch.complex(x, -x)).imag
    assert lazily.is_neg()
    _same(lazily, _comfyui(x.numpy()))
    bfloat = x.bfloat16()
    _same(bfloat.clone().requires_grad_(), _comfyui(bfloat.float().numpy()))
    _same(torch._neg_view(-bfloat), _comfyui(bfloat.float().numpy()))


def test_nan_in_a_tensor_is_counted(torch):
    for name in ("float16", "bfloat16", "float32"):
        x = torch.zeros(4, 4, 3, dtype=getattr(torch, name))
        x[3, 3, 2] = float("nan")
        assert copy_into(x, memoryview(bytearray(48))) == {0: 1}
        x[3, 3, 2] = 300.0
        with pytest.raises(InvalidRequest, match="floats up to 300"):
            _bytes(x)


def test_tensors_of_other_depths(torch):
    deep = torch.tensor([[[0, 258, 65535]]], dtype=torch.uint16)
    assert _at(deep.numpy(), "uint16")[0].tolist() == [[[0, 258, 65535]]]
    out = bytearray(6)
    copy_into(deep, memoryview(out), describe(deep).dtype)
    assert np.frombuffer(out, np.uint16).tolist() == [0, 258, 65535]
    assert list(_bytes(torch.tensor([[True, False]]))) == [255, 0]
    halves = torch.tensor([[0.5, 3.0]], dtype=torch.bfloat16)
    out = bytearray(8)
    copy_into(halves, memoryview(out), "float32")
    assert np.frombuffer(out, np.float32).tolist() == [0.5, 3.0]


def test_bytes_of_a_tensor(torch):
    x = torch.randint(0, 256, (3, 20, 10), dtype=torch.uint8).movedim(0, -1)
    _same(x, x.numpy())


def test_tensors_that_are_no_images_are_refused(torch):
    for name in ("int32", "int64", "uint32", "complex64", "int8", "float8_e5m2"):
        with pytest.raises(InvalidRequest, match=rf"pixels\.dtype: '{name}'"):
            describe(torch.zeros(4, 4, 3, dtype=getattr(torch, name)))
    with pytest.raises(InvalidRequest, match="dense tensor"):
        describe(torch.zeros(4, 4, 3, device="meta"))
    with pytest.raises(InvalidRequest, match="dense tensor"):
        describe(torch.zeros(4, 4, 3).to_sparse())


def test_the_road_of_a_gpu_gives_the_same_bytes(torch, monkeypatch):
    """No GPU is needed to walk it: everything but the address is as there."""
    monkeypatch.setattr(device, "_DEVICE_BLOCK", 5_000)
    for name in ("float16", "float32", "float64", "bfloat16", "uint8", "bool"):
        x = torch.rand(2, 3, 40, 33).movedim(1, -1)
        x = (x * 255).byte() if name == "uint8" else x > 0.5 if name == "bool" else x.to(getattr(torch, name))
        out = bytearray(describe(x).nbytes)
        device.from_device(x, memoryview(out))
        assert np.array_equal(np.frombuffer(out, np.uint8), _bytes(x))
    assert device.from_device(torch.full((4, 4, 3), float("nan")), memoryview(bytearray(48))) == {0: 48}
    with pytest.raises(InvalidRequest, match="floats up to 255"):
        device.from_device(torch.full((4, 4, 3), 255.0), memoryview(bytearray(48)))


def test_a_gpu_without_room_sends_its_floats(torch, monkeypatch):
    monkeypatch.setattr(device, "_DEVICE_BLOCK", 5_000)

    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "_quantize_there", full)
    for name in ("float32", "bfloat16", "uint8"):
        x = torch.rand(2, 3, 40, 33).movedim(1, -1)
        x = (x * 255).byte() if name == "uint8" else x.to(getattr(torch, name))
        out = bytearray(describe(x).nbytes)
        device.from_device(x, memoryview(out))
        assert np.array_equal(np.frombuffer(out, np.uint8), _bytes(x))


class _FakeCuda:
    """As much of torch.cuda as registering touches; the driver refuses what it has already."""

    def __init__(self):
        self.registered = {}

    def is_available(self):
        return True

    def cudart(self):
        return self

    def cudaHostRegister(self, address, size, flags):
        if address in self.registered:
            return 712
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address):
        del self.registered[address]


def test_an_arena_is_registered_once(torch, monkeypatch):
    fake = _FakeCuda()
    monkeypatch.setattr(torch, "cuda", fake)
    arena = memoryview(bytearray(4096))
    assert device.register_cuda(arena)
    assert list(fake.registered.values()) == [4096]

    launches = []

    def stumble(*_, device):
        launches.append(device)
        raise RuntimeError("CUDA error: part or all of the requested memory range is already mapped")

    monkeypatch.setattr(torch, "zeros", stumble)
    assert not device.register_cuda(arena)
    assert launches == ["cuda"]  # the error that a refusal leaves behind was met here, not by the user
    device.unregister_cuda(arena)
    assert fake.registered == {}


def test_planes_that_begin_anywhere_in_memory_are_taken() -> None:
    values = np.linspace(-0.1, 1.1, 3 * 20 * 10, dtype=np.float32)
    odd = np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(np.float32)
    assert not odd.flags.aligned
    x = np.moveaxis(odd.reshape(3, 20, 10), 0, -1)
    _same(x, _comfyui(x))


def five_images(kind: str) -> list[Any]:
    """Images that together are worth several threads, each alone not."""
    chance = np.random.default_rng(5)
    images = [chance.random((700, 1024, 3), np.float32) for _ in range(5)]
    if kind == "uint8":
        return [(255 * image).astype(np.uint8) for image in images]
    if kind == "tensor":
        torch = pytest.importorskip("torch")
        return [torch.from_numpy(image)[None] for image in images]
    return images


def together(images: list[Any]) -> tuple[list[Any], list[bytearray]]:
    out = [bytearray(describe(image).nbytes) for image in images]
    work = [(image, memoryview(one), "uint8") for image, one in zip(images, out, strict=True)]
    return copy_together(work), out


@pytest.mark.parametrize("kind", ["float32", "uint8", "tensor"])
def test_several_images_are_copied_as_each_alone(kind):
    images = five_images(kind)
    flaws, out = together(images)
    assert flaws == [{}] * 5
    for image, found in zip(images, out, strict=True):
        alone = bytearray(len(found))
        copy_into(image, memoryview(alone))
        assert found == alone


def test_each_of_several_images_keeps_its_own_flaws():
    images = five_images("float32")
    images[3][0, 0] = np.nan
    assert together(images)[0] == [{}, {}, {}, {0: 3}, {}]


def test_what_is_wrong_with_one_of_several_is_raised_when_none_is_written_any_more():
    images = five_images("float32")
    images[1] *= 200.0
    with pytest.raises(InvalidRequest, match="floats up to"):
        together(images)


def test_large_images_among_several_do_not_wait_for_themselves():
    large = np.random.default_rng(6).random((1100, 1024, 3), np.float32)
    flaws, (first, *_) = together([large] * 3)
    assert flaws == [{}] * 3
    assert np.array_equal(np.frombuffer(first, np.uint8), (large * 255).astype(np.uint8).ravel())


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("images", "masks"), [((20, 30, 3), 1), ((3, 20, 30, 3), 3), ((3, 20, 30, 1), 1), ((3, 20, 1, 3), 3)]
)
def test_masks_come_as_comfyui_has_them(kind: str, images: tuple[int, ...], masks: int) -> None:
    pixels = np.full(images, 9, np.uint8)
    height, width = images[-3:-1]
    given = np.zeros((masks, height, width), np.float32)
    given[:, height // 2 :] = 1
    mask: Any = given
    if kind == "torch":
        mask = pytest.importorskip("torch", reason="torch is not installed").from_numpy(given)
    for one in (mask, mask[..., None], *([mask[0], mask[0][..., None]] if masks == 1 else [])):
        alpha = with_alpha(pixels, one)[..., 3]
        assert (alpha[:, : height // 2] == 255).all()
        assert (alpha[:, height // 2 :] == 0).all()
    with pytest.raises(InvalidRequest, match=r"mask.shape: \[2, "):
        with_alpha(pixels, np.concatenate([given] * 2)[:2] if masks == 1 else given[:2])


@pytest.mark.parametrize("mask", [np.zeros((2, 2), int), "mask", np.zeros((1, 1, 2, 2)), np.zeros((0, 2))])
def test_a_wrong_mask_is_named_a_mask(mask: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^mask[.:]") as told:
        with_alpha(np.zeros((2, 2, 3), np.uint8), mask)
    assert told.value.field.startswith("mask")


def test_nan_in_a_mask_hides_what_it_covers() -> None:
    mask = np.array([[np.nan, 0.0]], np.float32)
    assert with_alpha(np.full((1, 2, 3), 9, np.uint8), mask)[0, 0, :, 3].tolist() == [0, 255]


def test_images_that_are_copied_together_are_not_shared_among_the_same_threads_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is large enough for several threads, and those wait for no other."""
    monkeypatch.setattr("luna_farm.imaging.quantize.ALONE_FLOATS", 1000)
    images = [np.random.default_rng(n).random((1024, 1024, 1), np.float32) for n in range(5)]
    slots = [bytearray(image.size) for image in images]
    assert (
        copy_together([(image, memoryview(slot), "uint8") for image, slot in zip(images, slots, strict=True)])
        == [{}] * 5
    )
    for image, slot in zip(images, slots, strict=True):
        assert bytes(slot) == (image * np.float32(255)).astype(np.uint8).tobytes()
