"""The `.npz` of Google's JAX code, alone or in a folder: the logits of the network in timm's names, or a refusal."""

import json
import warnings
import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.models.checkpoints import npz_file
from support.checkpoints import CONFIG, TIMM, vit_tensors, write_folder
from support.jax_vit import flax_arrays

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)
TANH = TIMM | {"model_args": TIMM["model_args"] | {"act_layer": "gelu_tanh"}}
TENSORS = vit_tensors("timm")
ARRAYS = flax_arrays(TENSORS, CONFIG.num_heads)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return jm.models.load(write_folder(tmp_path_factory.mktemp("timm"), TANH, TENSORS)).logits(IMAGES)


def save(path, arrays=ARRAYS, savez=np.savez):
    savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "form",
    [
        dict(),
        dict(root="opt/target/"),
        dict(root="params/", big_vision=True),
        dict(root="params/", big_vision=True, stacked=True),
    ],
)
def test_a_file_and_nothing_else(tmp_path, expected, form):
    arrays = flax_arrays(TENSORS, CONFIG.num_heads, **form)
    if form:
        arrays["opt/state/step"] = np.array(3)  # beside the network
    path = save(tmp_path / "Ti_16 (é).npz", arrays)
    with pytest.warns(UserWarning, match="JAX code") as caught:
        model = jm.models.load(path)
    np.testing.assert_allclose(model.logits(IMAGES), expected, rtol=1e-5, atol=1e-5)
    assert (model.name, model.config.num_heads, model.config.norm_eps) == ("Ti_16 (é)", 3, 1e-6)
    assert (model.preprocessing.mean, model.preprocessing.resize) == ((0.5,) * 3, (16, 16))
    texts = " ".join(str(w.message) for w in caught)
    assert "taken for a ViT as Google's JAX code computes it, with GELU in its tanh form" in texts
    assert "assuming the preprocessing of the published weights" in texts
    with pytest.warns(UserWarning, match="JAX code") as caught:
        assert jm.models.load(tmp_path, preprocessing="imagenet").preprocessing.mean[0] == 0.485  # the folder
    assert len(caught) == 1


def test_position_embeddings_of_patches_alone(tmp_path):
    """big_vision adds them before the class token is put in front: the token's own is zero."""
    tensors = TENSORS | {"pos_embed": TENSORS["pos_embed"].copy()}
    tensors["pos_embed"][:, 0] = 0
    arrays = flax_arrays(tensors, CONFIG.num_heads, root="params/", big_vision=True)
    arrays["params/pos_embedding"] = arrays["params/pos_embedding"][:, 1:]
    expected = jm.models.load(write_folder(tmp_path / "timm", TANH, tensors)).logits(IMAGES)
    with pytest.warns(UserWarning, match="JAX code"):
        found = jm.models.load(save(tmp_path / "a.npz", arrays), preprocessing="half")
    np.testing.assert_allclose(found.logits(IMAGES), expected, rtol=1e-5, atol=1e-5)


def test_compressed_fortran_and_bfloat16(tmp_path, expected):
    odd = {name: np.asfortranarray(array) for name, array in ARRAYS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = jm.models.load(save(tmp_path / "a.npz", odd, np.savez_compressed), preprocessing="half")
        np.testing.assert_allclose(found.logits(IMAGES), expected, rtol=1e-5, atol=1e-5)
        short = {name: array.astype(ml_dtypes.bfloat16) for name, array in ARRAYS.items()}
        found = jm.models.load(save(tmp_path / "b.npz", short), preprocessing="half")
    np.testing.assert_array_equal(found.params["head"]["bias"][...], np.asarray(short["head/bias"], np.float32))


def test_a_config_beside_it_decides(tmp_path):
    """timm's GELU is the exact one, and its name says how photos are seen."""
    exact = jm.models.load(write_folder(tmp_path / "timm", TIMM, TENSORS))
    folder = write_folder(tmp_path / "npz", TIMM, processor=None)
    for source in (folder, save(folder / "weights.npz")):
        if source == folder:
            save(folder / "weights.npz")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = jm.models.load(source)
        np.testing.assert_allclose(found.logits(IMAGES), exact.logits(IMAGES), rtol=1e-5, atol=1e-5)
        assert found.class_names == ("ant", "bee", "cow")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(jm.InputError, match="speaks of Hugging Face's vit; load the file alone"):
        jm.models.load(folder)


def test_a_thousand_classes_are_imagenets(tmp_path):
    arrays = ARRAYS | {"head/kernel": np.zeros((12, 1000), np.float32), "head/bias": np.zeros(1000, np.float32)}
    with pytest.warns(UserWarning, match="taken for those of ImageNet-1k"):
        model = jm.models.load(save(tmp_path / "a.npz", arrays))
    assert model.class_names[1] == "goldfish, Carassius auratus"


def without(*names):
    return {name: array for name, array in ARRAYS.items() if name not in names}


SIDE = np.zeros((2, 2), np.float32)
POSITION = "Transformer/posembed_input/pos_embedding"


@pytest.mark.filterwarnings("ignore:.*JAX code")
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": SIDE}, "expected a vision transformer of Google's JAX code .* got the arrays a"),
        (ARRAYS | {"conv_root/kernel": SIDE}, r"a convolutional stem \(R\+ViT\), which is not implemented"),
        (ARRAYS | {"pre_logits/kernel": SIDE}, "the hidden layer pre_logits"),
        (ARRAYS | {"MAPHead_0/probe": SIDE}, "attention pooling"),
        (without("cls"), "no class token .* averages over its tokens"),
        (without(POSITION), "fixed position embeddings are not implemented"),
        (without("head/kernel"), "no head/kernel: expected a classifier"),
        (without("Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias"), "1 missing: blocks.1.mlp.fc1.bias"),
        (without("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/bias"), "key.bias"),
        (without("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"), "query.kernel"),
        (ARRAYS | {"odd/kernel": SIDE}, r"the array odd/kernel \[2, 2\] is no part of a vision transformer"),
        (ARRAYS | {"Transformer/encoderblock_0/gate": SIDE}, "the array gate of a layer is no part"),
        (ARRAYS | {"head/bias": np.zeros(3, np.int8)}, "head.bias is of int8"),
        (
            ARRAYS | {"head/bias": np.array([1, None, "x"], object)},
            "head/bias holds pickled objects, which are not read",
        ),
        ({}, "holds no arrays"),
    ],
)
def test_other_files_are_refused(tmp_path, arrays, message):
    path = save(tmp_path / "a.npz", arrays)
    with pytest.raises(jm.InputError, match=message) as caught:
        jm.models.load(path, preprocessing="half")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_one_error(tmp_path):
    path = save(tmp_path / "a.npz")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    contents = [
        b"",
        b"PK\x03\x04",
        whole[:-100],
        whole[: len(whole) // 2],
        b"version https://git-lfs.github.com/spec/v1",
    ]
    for _ in range(40):
        content = bytearray(whole)
        for at in rng.integers(len(content), size=3):
            content[at] = rng.integers(256)
        contents.append(bytes(content))
    refusals = []
    for content in contents:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                jm.models.load(path, preprocessing="half")
            except jm.InputError as error:
                refusals.append(str(error))
    assert len(refusals) > 5
    assert all(text.startswith(str(path)) for text in refusals)
    np.save(tmp_path / "one.npy", SIDE)
    path.write_bytes((tmp_path / "one.npy").read_bytes())
    with pytest.raises(jm.InputError, match=r"is a single array \(.npy\)"):
        jm.models.load(path)


def test_what_a_file_claims_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_file, "_FREE_BYTES", 1 << 16)
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    entry = header + len(text).to_bytes(2, "little") + text + bytes(8)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("embedding/kernel.npy", entry)
    with pytest.raises(jm.InputError, match="the array embedding/kernel .* does not fit"):
        jm.models.load(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding/kernel.npy", bytes(1 << 24))
    with pytest.raises(jm.InputError, match="claims 16777216 in 1 arrays, too many"):
        jm.models.load(tmp_path / "b.npz")


def test_timm_reads_the_same(tmp_path):
    """timm's own loader, in the older layout and in big_vision's."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    timm = pytest.importorskip("timm", exc_type=ImportError)
    from timm.models.vision_transformer import _load_weights

    args = TANH["model_args"] | {"num_classes": 3, "mlp_ratio": 20 / 12}
    for form in (dict(), dict(root="params/", big_vision=True, stacked=True)):
        path = save(tmp_path / "a.npz", flax_arrays(TENSORS, CONFIG.num_heads, **form))
        theirs = timm.create_model("vit_tiny_patch16_224", **args).eval()
        with torch.no_grad():
            _load_weights(theirs, str(path))
            logits = theirs(torch.tensor(np.asarray(IMAGES).transpose(0, 3, 1, 2))).numpy()
        with pytest.warns(UserWarning, match="JAX code"):
            ours = jm.models.load(path, preprocessing="half")
        np.testing.assert_allclose(ours.logits(IMAGES), logits, rtol=1e-4, atol=1e-4)
