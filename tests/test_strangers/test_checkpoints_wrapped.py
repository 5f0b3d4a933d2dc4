"""What trainers save: weights under keys and prefixes, among much else. Each file loads, and says what it took."""

import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxmoxi as jm
from support.checkpoints import HUGGINGFACE, MOBILENET, TIMM, mobilenet_tensors, vit_tensors, write_folder
from support.torch_files import Call, Storage, legacy, tensor, whole, zip_entries, zip_of, zipped

PLAIN = vit_tensors()
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return np.asarray(jm.models.load(write_folder(tmp_path_factory.mktemp("plain"), tensors=PLAIN)).logits(IMAGES))


def stored(tensors, prefix="", key="", scale=1):
    return {prefix + n: whole("Float", t * np.float32(scale), f"{key}{n}") for n, t in tensors.items()}


def saved(folder, state, name="best.ckpt", written=zipped):
    write_folder(folder)
    (folder / name).write_bytes(written(state))
    return folder / name


def told(source, **options):
    """The model, and what the one warning says of what was taken; "" where there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = jm.models.load(source, **options)
    texts = [str(w.message) for w in caught]
    assert len(texts) <= 1, texts
    return model, "".join(texts)


SCALAR = Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", False, True), b"12345678")
BESIDE = {
    "epoch": 3, "best_acc": SCALAR, "args": Call("argparse.Namespace", "x"), "best_acc1": whole("Float", 0.5, "acc"),
    "optimizer": {"state": {0: {"exp_avg": whole("Float", [1, 2], "o")}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "hyper_parameters": Call("omegaconf.dictconfig.DictConfig"), "lr_schedulers": [{"last_epoch": 2}],
    "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"Checkpoint": {"best": Call("pathlib.PosixPath", "x")}},
    "criterion": Call("torch.nn.CrossEntropyLoss"), "criterion_state": {"weight": whole("Float", [1, 2, 3], "c")},
}  # fmt: skip


@pytest.mark.parametrize("written", [zipped, legacy])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (stored(PLAIN), ""),
        (
            {"state_dict": stored(PLAIN, "model.")} | BESIDE,
            "under state_dict; read the names without the prefix model.",
        ),
        ({"state_dict": stored(PLAIN, "net.")}, "under state_dict; read the names without the prefix net."),
        (stored(PLAIN, "module."), "without the prefix module."),
        (stored(PLAIN, "_orig_mod."), "without the prefix _orig_mod."),
        ({"model": stored(PLAIN, "module._orig_mod.model.")}, "without the prefix module._orig_mod.model."),
        (stored(PLAIN, "classifier_of_mine."), "without the prefix classifier_of_mine."),
        ({"n_averaged": whole("Long", 3, "n")} | stored(PLAIN, "module."), "without the prefix module.; left out n_av"),
        ({"net": stored(PLAIN)} | BESIDE, "took the weights under net"),
        ({"network": stored(PLAIN)}, "took the weights under network"),
        ({"weights": stored(PLAIN)}, "took the weights under weights"),
        ({"model_state_dict": stored(PLAIN)} | BESIDE, "took the weights under model_state_dict"),
        ({"ema": {"decay": 0.9, "module": stored(PLAIN)}}, "took the weights under ema.module"),
        ({"checkpoint": {"model": {"state_dict": stored(PLAIN)}}, "x": 1}, "under checkpoint.model.state_dict"),
        ({"my_network": stored(PLAIN)} | BESIDE, "took the weights under my_network"),
        ({"my_network": stored(PLAIN), "epoch": 1}, "took the weights under my_network"),
        (
            {"state_dict": stored(PLAIN, "model.") | stored({"criterion.weight": np.ones(3, "f4")}, key="c")},
            "prefix model.; left out criterion.weight",
        ),
        (
            {"state_dict": stored(PLAIN, "model.") | stored(PLAIN, "ema_model.module.", "e", 2)},
            "left out the averaged copy under ema_model.module. (entry='state_dict.ema_model.module' takes it instead)",
        ),
        (
            {"state_dict": stored(PLAIN), "ema": stored(PLAIN, "module.", "e", 2)},
            "the weights state_dict and ema; taking state_dict. entry='ema' takes ema instead",
        ),
    ],
)
def test_wrapped_weights(tmp_path, expected, state, message, written):
    path = saved(tmp_path, state, written=written)
    model, text = told(path)
    np.testing.assert_array_equal(model.logits(IMAGES), expected)
    assert message in text
    assert bool(message) == bool(text)
    assert not text or text.startswith(f"{path}: ")


def test_an_entry_is_asked_for(tmp_path):
    twice = {"state_dict": stored(PLAIN, "student.") | stored(PLAIN, "teacher.", "t", 2)}
    path = saved(tmp_path, twice)
    with pytest.raises(jm.InputError, match=r"2 networks, under state_dict.student and state_dict.teacher, .* entry="):
        jm.models.load(path)
    for name, scale in (("student", 1), ("teacher", 2)):
        model, text = told(path, entry=f"state_dict.{name}")
        np.testing.assert_array_equal(model.params["head"]["bias"][...], PLAIN["classifier.bias"] * scale)
        assert not text
    with pytest.raises(jm.InputError, match="no entry 'state_dict.other' that holds tensors; found state_dict: name"):
        jm.models.load(path, entry="state_dict.other")
    several = {"generator": stored(PLAIN), "discriminator": {"net": stored(PLAIN, "module.", "d", 3)}, "epoch": 1}
    path = saved(tmp_path / "several", several)
    with pytest.raises(jm.InputError, match=r"tensors under generator, discriminator, .* entry=\"generator\""):
        jm.models.load(path)
    for entry in ("discriminator", "discriminator.net"):
        model, text = told(path, entry=entry)
        np.testing.assert_array_equal(model.params["head"]["bias"][...], PLAIN["classifier.bias"] * 3)
        assert "without the prefix module." in text
    save_file({f"{n}.{k}": t for n in ("a", "b") for k, t in PLAIN.items()}, path.with_suffix(".safetensors"))
    with pytest.raises(jm.InputError, match="2 networks, under a and b"):
        jm.models.load(path.with_suffix(".safetensors"))
    assert told(path.with_suffix(".safetensors"), entry="b")[1] == ""


def test_what_may_belong_to_the_network_is_not_left_out(tmp_path):
    """A head of its own beside a wrapped network, or a layer that normalises: the answers would be others."""
    for name in ("head.weight", "normalize.mean", "model2.weight"):
        state = stored(PLAIN, "backbone.") | stored({name: np.ones((3, 12), "f4")}, key="x")
        path = saved(tmp_path, {"state_dict": state})
        message = (
            rf"under backbone. and beside it 1 tensors that may belong to it: {name} \[3, 12\]; .*'state_dict.backbone'"
        )
        with pytest.raises(jm.InputError, match=message):
            jm.models.load(path)
    assert told(path, entry="state_dict.backbone")[0].class_names == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("settings", "tensors", "prefix"),
    [
        (TIMM, vit_tensors("timm"), "module."),
        (MOBILENET, mobilenet_tensors(), "model."),
        pytest.param(
            MOBILENET | {"tf_padding": False}, mobilenet_tensors("torchvision"), "net.", marks=pytest.mark.slow
        ),
        (HUGGINGFACE, vit_tensors(), "vit_model."),
    ],
)
def test_every_naming_is_unwrapped(tmp_path, settings, tensors, prefix):
    folder = write_folder(tmp_path / "plain", settings, tensors)
    wrapped = write_folder(tmp_path / "wrapped", settings, {prefix + n: t for n, t in tensors.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        side = jm.models.load(folder, preprocessing="half").config.image_size
        images = jnp.ones((1, side, side, 3))
        expected = jm.models.load(folder, preprocessing="half").logits(images)
    with pytest.warns(UserWarning, match=f"without the prefix {prefix}"):
        found = jm.models.load(wrapped, preprocessing="half")
    np.testing.assert_array_equal(found.logits(images), expected)


def test_names_that_transformers_has_in_memory(tmp_path, expected):
    changes = {
        "encoder.layer.": "layers.", "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj", "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
    }  # fmt: skip
    memory = {}
    for name, array in PLAIN.items():
        for old, new in changes.items():
            name = name.replace(old, new)
        memory[name] = array
    assert "vit.layers.0.attention.q_proj.weight" in memory
    model, text = told(saved(tmp_path, stored(memory)))
    np.testing.assert_array_equal(model.logits(IMAGES), expected)
    assert not text
    assert "prefix model." in told(saved(tmp_path, stored(memory, "model.")))[1]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "checkpoint.pth.tar", "model.pt", "best.ckpt", "last.pth", "model_0001.bin"]
)
def test_the_only_weights_of_a_folder(tmp_path, expected, name):
    path = saved(tmp_path, stored(PLAIN), name)
    if name.endswith("safetensors"):
        save_file(PLAIN, path)
    for beside in ("optimizer.pt", "training_args.bin", "rng_state.pth", "scheduler.pt"):
        (tmp_path / beside).write_bytes(b"not read")
    model, text = told(tmp_path)
    np.testing.assert_array_equal(model.logits(IMAGES), expected)
    assert text == f"{path}: took {name}, the only weights file of the folder"
    assert told(path)[1] == ""
    (tmp_path / "other.pt").write_bytes(b"")
    with pytest.raises(jm.InputError, match=rf"several weights files \(.*{name}.*\): give the path of the file"):
        jm.models.load(tmp_path)


def test_an_index_of_any_name(tmp_path, expected):
    write_folder(tmp_path)
    names = sorted(PLAIN)
    places = {n: f"part-{i % 2}.safetensors" for i, n in enumerate(names)}
    for file in set(places.values()):
        save_file({n: PLAIN[n] for n in names if places[n] == file}, tmp_path / file)
    (tmp_path / "model.fp32.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    np.testing.assert_array_equal(told(tmp_path)[0].logits(IMAGES), expected)


@pytest.mark.parametrize("kind", ["Half", "BFloat16", "Double"])
def test_weights_of_other_precisions(tmp_path, kind):
    state = {n: whole(kind, t.astype("f2"), n) for n, t in PLAIN.items()}
    model, _ = told(saved(tmp_path, {"model": state}))
    np.testing.assert_allclose(model.params["head"]["bias"][...], PLAIN["classifier.bias"], rtol=1e-2)


def test_tensors_that_are_not_read_are_ignored_by_name(tmp_path, expected):
    extra = ["vit.embeddings.mask_token", "vit.pooler.dense.weight", "vit.embeddings.position_ids", "lm_head.weight"]
    model, text = told(saved(tmp_path, stored(PLAIN | {n: np.ones((2, 2), "f4") for n in extra})))
    np.testing.assert_array_equal(model.logits(IMAGES), expected)
    assert not text
    for name in ("decoder.0.weight", "vit.pooler.layernorm.weight", "vit.extra"):
        with pytest.raises(jm.InputError, match=f"1 extra: {name}"):
            jm.models.load(saved(tmp_path, stored(PLAIN | {name: np.ones((2, 2), "f4")})))


class Module(Call):
    """As PyTorch writes a module: an object whose attributes hold its tensors."""

    def __reduce__(self):
        return *self.parts, {"training": True, "_parameters": stored(PLAIN)}


MODULE = Module("my.nets.Net")
LIST = [whole("Float", [1, 2], "a"), whole("Float", [3], "b")]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            MODULE,
            r"of the class my.nets.Net, .*torch.load\(\"x.pt\", weights_only=False\)   and   torch.save\(model.sta",
        ),
        ({"model": MODULE, "epoch": 1}, r"class my.nets.Net under model, .*False\)\[\"model\"\]   and .*x_weights.pt"),
        ({"ema": {"decay": 0.9, "shadow_params": LIST}}, "a list of 2 tensors without names under ema.shadow_params"),
        (LIST, "a list of 2 tensors without names"),
        (
            {n: Call("torch._utils._rebuild_qtensor", t) for n, t in stored(PLAIN).items()},
            "as torch._utils._rebuild_qt",
        ),
        ({"w": Call("numpy.core.multiarray._reconstruct", 1)}, "holds the NumPy array w and no tensors"),
        ({"w": tensor(Storage("Odd", [1]), (1,), (1,))}, "holds numbers as torch.OddStorage, which are not read"),
    ],
)
def test_what_is_no_state_dict(tmp_path, state, message):
    path = saved(tmp_path, state, "x.pt")
    with pytest.raises(jm.InputError, match=message) as caught:
        jm.models.load(path)
    assert "\n" not in str(caught.value)


def test_programs_and_folders_of_other_kinds(tmp_path):
    entries = zip_entries({"w": whole("Float", [1])})
    write_folder(tmp_path)
    for more, message in (
        ("constants.pkl", r"a TorchScript archive \(torch.jit.save\)"),
        ("models/model.json", r"a program of torch.export \(.pt2\)"),
    ):
        (tmp_path / "x.pt").write_bytes(zip_of(entries | {more: b"N."}))
        with pytest.raises(jm.InputError, match=message):
            jm.models.load(tmp_path)
    (tmp_path / "x.pt").write_bytes(bytes(4) + b"ET12" + bytes(100))
    with pytest.raises(jm.InputError, match="an ExecuTorch program"):
        jm.models.load(tmp_path)
    (tmp_path / "x.pt").unlink()
    for name, message in (
        (".metadata", "sharded checkpoint of torch.distributed; .*dcp_to_torch"),
        ("zero_to_fp32.py", "DeepSpeed"),
        ("flax_model.msgpack", "weights of Flax"),
        ("model.onnx", "an ONNX model"),
    ):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(jm.InputError, match=message):
            jm.models.load(tmp_path)
        if not name.endswith((".py", ".metadata")):
            with pytest.raises(jm.InputError, match=message):
                jm.models.load(tmp_path / name)
        (tmp_path / name).unlink()
