import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.models.networks import convnext
from jaxmoxi.models.networks.convnext import ConvNextConfig
from jaxmoxi.models.networks.convnext_config import flat_tensors
from jaxmoxi.models.networks.depthwise import in_pairs
from support.checkpoints import write_folder
from support.networks import made_images, made_tensors

SMALL = {"depths": (1, 2), "dims": (8, 12), "kernels": (7, 3), "num_classes": 5, "image_size": 24}
TIMM = {"architecture": "convnext_tiny", "num_classes": 5}
HUGGINGFACE = {"model_type": "convnext", "depths": [1, 2], "hidden_sizes": [8, 12], "num_stages": 2, "image_size": 24}
IMAGES = jnp.asarray(made_images((24, 29), count=3))
GOLDEN = Path(__file__).parents[2] / "golden" / "networks"


def tensors_of(naming="timm", **changes):
    return made_tensors(convnext.expected_tensors(ConvNextConfig(**{**SMALL, **changes}), naming))


def network(config, tensors):
    state = convnext.from_tensors(config, tensors, source="test")
    return nnx.merge(nnx.split(nnx.eval_shape(lambda: convnext.ConvNext(config, rngs=nnx.Rngs(0))))[0], state)


@pytest.fixture(scope="module")
def net():
    return network(ConvNextConfig(**SMALL), tensors_of())


def test_features_batches_and_gradients(net):
    def first(maps_of, images):
        maps = maps_of(images)
        logits = net.classify(convnext.Features(maps))
        return logits[0].sum(), (maps, logits)

    def graded(maps_of):
        return jax.jit(jax.value_and_grad(lambda images: first(maps_of, images), has_aux=True))

    (_, (maps, logits)), gradient = graded(lambda images: net.features(images).maps)(IMAGES)
    assert maps.shape == (3, 3, 3, 12)  # 24 x 29 pixels: the last ones are not seen
    np.testing.assert_allclose(jax.jit(net)(IMAGES[:2]), logits[:2], rtol=1e-5, atol=1e-5)  # in pairs, not one by one
    assert jnp.abs(gradient[0]).max() > 1e-4
    assert not gradient[1:].any()
    # What accelerators run, all images at once.
    (_, (_, native)), slope = graded(net._maps)(IMAGES)
    np.testing.assert_allclose(native, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-6)


def test_a_response_that_is_zero_has_a_gradient():
    response = convnext.Response(2)
    response.scale[...] = jnp.array([2.0, 3.0])
    x = jnp.array([[[0.0, 3.0], [0.0, -4.0]]])  # norms 0 and 5, of mean 2.5
    np.testing.assert_allclose(response(x), x * jnp.array([1.0, 1 + 2 * 3.0]), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: response(x).sum())(x)).all()


def test_pairs():
    for count in (1, 2, 3, 4):
        seen = []
        maps = in_pairs(lambda x, seen=seen: seen.append(len(x)) or x + 1, IMAGES.repeat(2, 0)[:count])
        np.testing.assert_array_equal(maps, IMAGES.repeat(2, 0)[:count] + 1)
        assert seen == [2 - count % 2]


@pytest.mark.parametrize("naming", ["huggingface", "facebook", "torchvision"])
def test_all_namings_give_the_same_parameters(naming):
    config = ConvNextConfig(**SMALL)
    ours = list(convnext.expected_tensors(config, "timm"))
    theirs = dict(zip(convnext.expected_tensors(config, naming), (tensors_of()[name] for name in ours), strict=True))
    if naming == "torchvision":
        theirs = {n: t.reshape(-1, 1, 1) if n.endswith("layer_scale") else t for n, t in theirs.items()}
    first, second = (nnx.to_flat_state(convnext.from_tensors(config, t, source="t")) for t in (tensors_of(), theirs))
    for (path, left), (_, right) in zip(first, second, strict=True):
        np.testing.assert_array_equal(left[...], right[...], err_msg=str(path))


def test_bfloat16_keeps_the_head(tmp_path):
    tensors = tensors_of("huggingface", kernels=(7, 7))
    folder = write_folder(tmp_path, HUGGINGFACE | {"num_labels": 5}, tensors, None)
    model = jm.models.load(folder, preprocessing="half")
    half = model.astype("bfloat16")
    dtypes = {path[0]: leaf[...].dtype for path, leaf in nnx.to_flat_state(half.params)}
    assert (dtypes["head"], dtypes["norm"], dtypes["stages"]) == (jnp.float32, jnp.float32, jnp.bfloat16)
    images = IMAGES[:2, :, :24]
    exact, near = model.logits(images), half.logits(images)
    assert near.dtype == jnp.float32
    np.testing.assert_allclose(near, exact, atol=0.1 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*convnext*.json")), ids=lambda path: path.stem)
def test_the_weights_decide_on_the_shape(path):
    golden = json.loads(path.read_text())
    tensors = {n: np.broadcast_to(np.float32(0), shape) for n, shape in golden["shapes"].items()}  # of no memory
    config = convnext.config_from_settings(golden["settings"], tensors)
    flat = {n: t.shape for n, t in flat_tensors(tensors).items()}
    naming = path.stem.split("-")[0].replace("transformers", "huggingface")
    naming += "_v2" if path.stem == "transformers-convnextv2" else ""
    assert convnext.expected_tensors(config, naming) == flat
    assert (config.num_channels, config.num_classes) == (golden["image"][2], len(golden["logits"][0]))


@pytest.mark.parametrize(
    ("settings", "naming", "message"),
    [
        (TIMM | {"architecture": "convnext_atto_rms"}, "timm", "_rms.* not implemented"),
        (TIMM | {"model_args": {"depths": [2, 2]}}, "timm", r"depths is \[2, 2\] in the config and \[1, 2\]"),
        (TIMM | {"model_args": {"output_stride": 16}}, "timm", "expected output_stride 32"),
        (TIMM | {"model_args": {"stem_type": "overlap_act"}}, "timm", "expected stem_type"),
        (TIMM | {"model_args": {"stem_type": "overlap"}}, "timm", "stem_type of patches"),
        (TIMM | {"model_args": {"act_layer": "snake"}}, "timm", "expected act_layer to be one of"),
        (TIMM | {"model_args": {"use_grn": True}}, "timm", "use_grn is True in the config and False"),
        (TIMM | {"model_args": {"odd": 1}}, "timm", "model_args odd may change the network"),
        (TIMM, "huggingface", "named as in huggingface"),
        (HUGGINGFACE, "timm", "named as in timm"),
        (HUGGINGFACE | {"hidden_sizes": [8, 16]}, "huggingface", r"hidden_sizes is \[8, 16\]"),
        (HUGGINGFACE | {"num_channels": 1}, "huggingface", "num_channels is 1 in the config and 3"),
        (HUGGINGFACE | {"layer_scale_init_value": 0}, "huggingface", "layer_scale_init_value > 0 is False"),
        (HUGGINGFACE | {"quantization_config": {"bits": 4}}, "huggingface", "quantization_config null"),
    ],
)
def test_settings_that_are_refused(settings, naming, message):
    with pytest.raises(jm.InputError, match=message):
        convnext.config_from_settings(settings, tensors_of(naming, kernels=(7, 7)))


def test_tensors_that_are_refused():
    tensors = tensors_of()
    del tensors["stages.1.blocks.1.mlp.fc2.bias"]
    config = convnext.config_from_settings(TIMM, tensors)
    with pytest.raises(jm.InputError, match=r"1 missing: stages.1.blocks.1.mlp.fc2.bias \[12\]"):
        convnext.from_tensors(config, tensors, source="somewhere")
    with pytest.raises(jm.InputError, match="expected a tensor head.fc.weight of 2 axes.* it is missing"):
        convnext.config_from_settings(TIMM, {n: t for n, t in tensors.items() if n != "head.fc.weight"})
    with pytest.raises(jm.InputError, match="names of huggingface .*got odd"):
        convnext.config_from_settings(TIMM, {"odd": np.zeros(1)})


def test_shapes_that_are_refused(net, unchecked):
    for changes, message in (
        ({"dims": (8,)}, "same number of stages"), ({"kernels": (7, 4)}, "kernels odd"),
        ({"activation": "snake"}, "expected an activation"), ({"norm_first": True, "hidden": 3}, "no hidden layer"),
    ):  # fmt: skip
        with pytest.raises(jm.InputError, match=message):
            ConvNextConfig(**{**SMALL, **changes})
    for shape in ((24, 24, 3), (1, 3, 24, 24), (1, 7, 24, 3)):
        with pytest.raises(jm.InputError, match=r"expected images \[B, H, W, 3\], H and W at least 8"):
            net(jnp.zeros(shape))
