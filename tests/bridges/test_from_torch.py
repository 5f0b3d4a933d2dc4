"""PyTorch modules traced into JAX, against PyTorch itself."""

import importlib
import os
import sys
import warnings
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxmoxi as jm
from jaxmoxi.bridges import CallableLogits, TorchLogits, from_callable, from_torch
from support.games import every_coalition

torch = pytest.importorskip("torch", exc_type=ImportError)
F = torch.nn.functional
needs_torchax = pytest.mark.skipif(find_spec("torchax") is None, reason="torchax is not installed")
IMAGE = jax.random.uniform(jax.random.key(0), (12, 12, 3))
IMAGES = jax.random.uniform(jax.random.key(1), (4, 12, 12, 3))
REGIONS = jm.grid_regions(12, 12, rows=3, cols=3)
P, K = 9, 5
SHAPE = (12, 12, 3)


class Net(torch.nn.Module):
    """Convolution, batch normalisation, dropout and a head, in training mode; `after` does the rest."""

    def __init__(self, after=None, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = torch.nn.Conv2d(channels, 4, 3), torch.nn.BatchNorm2d(4)
        self.dropout, self.head = torch.nn.Dropout(0.5), torch.nn.Linear(4, K)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.scale = torch.tensor([3.0])  # a tensor that is neither parameter nor buffer
        self.after = after

    def forward(self, x):
        x = self.dropout(torch.relu(self.norm(self.conv(x))))
        logits = self.head(x.mean((2, 3))) * self.scale
        return logits if self.after is None else self.after(logits, x)


def theirs(module, images):
    """What PyTorch answers in evaluation mode, and the gradient of the second logit's sum."""
    x = torch.from_numpy(np.array(images).transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = module.eval()(x)
    logits[:, 1].sum().backward()
    return logits.detach().numpy(), x.grad.numpy().transpose(0, 2, 3, 1)


@needs_torchax
def test_a_module_is_traced_and_stays_as_it_was():
    module = Net()
    module.head.eval()
    modes = [part.training for part in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fn = from_torch(module, image_shape=SHAPE)
    assert isinstance(fn, TorchLogits)
    assert {"conv.weight", "norm.running_var", "scale"} <= set(fn.tensors)
    got = jax.jit(lambda fn, x: fn(x))(fn, IMAGES)
    slope = jax.grad(lambda x: fn(x)[:, 1].sum())(IMAGES)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    expected, gradient = theirs(module, IMAGES)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(fn)(jnp.stack([IMAGES, IMAGES[::-1]]))[1, ::-1], expected, rtol=1e-4, atol=1e-5)


@needs_torchax
def test_a_search_finds_what_it_finds_through_the_host():
    module = Net()
    traced, called = (
        jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, fill="mean")
        for fn in (from_torch(module, image_shape=SHAPE), from_callable(module, K))
    )
    a, b = (jm.greedy_insertion(v, P) for v in (traced, called))
    np.testing.assert_array_equal(a.order, b.order)
    np.testing.assert_allclose(a.values, b.values, atol=1e-4)
    masks = every_coalition()[:, :1] & np.ones(P, bool) | (np.arange(64)[:, None] % (np.arange(P) + 2) == 0)
    sharded = jm.shard_coalitions(traced, Mesh(np.array(jax.devices()[:4]), ("d",)))
    np.testing.assert_allclose(jm.evaluate(sharded, masks), jm.evaluate(called, masks), atol=1e-4)


@needs_torchax
def test_one_function_is_kept_for_a_module():
    module = Net()
    compiled = jax.jit(lambda fn, x: fn(x))
    first = from_torch(module, image_shape=SHAPE)
    before = compiled(first, IMAGES)
    with torch.no_grad():
        module.head.weight.mul_(2)
        module.head.bias.mul_(2)
        module.norm.num_batches_tracked.add_(1)
    second = from_torch(module.train(), image_shape=SHAPE)
    np.testing.assert_array_equal(compiled(first, IMAGES), before)  # a copy, which training does not reach
    np.testing.assert_allclose(compiled(second, IMAGES), 2 * before, rtol=1e-5)
    assert second.traced is first.traced
    assert compiled._cache_size() == 1
    module.after = lambda logits, x: logits + 1
    third = from_torch(module, image_shape=SHAPE)
    np.testing.assert_allclose(third(IMAGES), 2 * before + 1, rtol=1e-4, atol=1e-5)
    module.after = Listed()
    fourth = from_torch(module, image_shape=SHAPE)
    module.after.constants[0].add_(7)  # no leaf: the function that was kept holds the old one
    fifth = from_torch(module, image_shape=SHAPE)
    np.testing.assert_allclose(fifth(IMAGES) - fourth(IMAGES), 7, atol=1e-4)


class Output:
    def __init__(self, logits):
        self.logits = logits


class Kept(torch.nn.Module):
    def forward(self, logits, x):
        if not hasattr(self, "ones"):
            self.ones = torch.ones_like(x[:1])  # holds for one shape only, and inside a trace is a tracer
        return logits * (x * self.ones).mean((2, 3))[:, :1]


class Listed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.constants = [torch.arange(5.0)]

    def forward(self, logits, x):
        return logits + self.constants[0]


def write_in_place(logits, x):
    logits[:, 0] = 0
    logits[:, 1:3] += 1
    return logits


FORMS = {
    "an object": lambda logits, x: Output(logits),
    "a dictionary": lambda logits, x: {"hidden": x.mean((2, 3)), "logits": logits},
    "a tuple": lambda logits, x: (x, logits),
    "a constant made on the CPU": lambda logits, x: logits + torch.arange(5.0),
    "a constant in a list": Listed(),
    "written in place": write_in_place,
    "pooled unevenly": lambda logits, x: (
        logits + torch.nn.functional.adaptive_avg_pool2d(x, 3).amax((1, 2, 3))[:, None]
    ),
    "doubled and back": lambda logits, x: (logits.double() * 2).float(),
    "kept from the first pass": Kept(),
}


@needs_torchax
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_modules(form):
    module = Net(FORMS[form])
    fn = from_torch(module, image_shape=SHAPE, fallback=False)
    for images in (IMAGES, IMAGES[:, :9, :7]):  # another shape is traced anew
        np.testing.assert_allclose(fn(images), from_callable(module, K)(images), rtol=1e-4, atol=1e-5)
        vars(module.after).pop("ones", None)  # what the module itself keeps would refuse the other shape


@needs_torchax
def test_number_formats_and_channels():
    exact = from_torch(Net(), image_shape=SHAPE)(IMAGES)
    for dtype, gap in ((torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
        module = Net().to(dtype)
        module.scale = module.scale.to(dtype)
        fn = from_torch(module, image_shape=SHAPE, fallback=False)
        assert fn(IMAGES).dtype == jnp.float32
        np.testing.assert_allclose(fn(IMAGES), exact, atol=gap)
        held = {str(t.dtype) for t in fn.tensors.values()}
        assert held == {str(dtype)[6:].replace("64", "32"), "int32"}
    last = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 11, 2))
    images = jax.random.uniform(jax.random.key(2), (2, 4, 6, 11))
    expected = last(torch.from_numpy(np.array(images))).detach().numpy()
    fn = from_torch(last, image_shape=(4, 6, 11), channels_first=False)
    np.testing.assert_allclose(fn(images), expected, rtol=1e-4, atol=1e-5)


@needs_torchax
def test_images_are_what_the_module_says_or_takes(unchecked):
    assert from_torch(Net(channels=1), fallback=False).tensors["conv.weight"].shape[1] == 1  # its first convolution
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 20 * 2, 3))
    with pytest.raises(ValueError, match=r"took none of the shapes \(224, 224, 3\).* Give image_shape=\(H, W"):
        from_torch(flat)
    flat.config = type("Config", (), {"image_size": [16, 20], "num_channels": 2})()
    assert isinstance(from_torch(flat), TorchLogits)
    flat.config.image_size = {"height": 16, "width": 20}
    assert isinstance(from_torch(flat), TorchLogits)
    del flat.config
    flat.pretrained_cfg = {"input_size": (2, 16, 20)}
    assert isinstance(from_torch(flat), TorchLogits)
    with pytest.raises(ValueError, match=r"Sequential does not take images of shape \[2, 5, 5\] \(RuntimeError: mat1"):
        from_torch(flat, image_shape=(5, 5, 2))
    with pytest.raises(ValueError, match=r"image_shape must be \(H, W, channels\).*got \(5, 5\)"):
        from_torch(flat, image_shape=(5, 5))
    with pytest.raises(ValueError, match=r"returns logits \[B, K\] for 3 images.*got shape \[3, 4, 222, 222\]"):
        from_torch(torch.nn.Conv2d(3, 4, 3))


def branch(logits, x):
    return logits + 1 if x.mean() > 0 else logits


def missing(logits, x):
    return logits + F.adaptive_max_pool2d(x, 2).mean()


def noisy(logits, x):
    return logits + torch.rand(5)


UNTRACED = {
    branch: r"depends on the images' own numbers \(.*\), in branch, line \d+: \"return logits \+ 1 if x.mean",
    missing: r"aten::adaptive_max_pool2d, which torchax does not have, in missing, line \d+",
    noisy: r"what torchax traced returns logits that differ by up to [\d.]+, where the largest is",
}


@needs_torchax
@pytest.mark.parametrize("after", UNTRACED, ids=lambda f: f.__name__)
def test_what_cannot_be_traced_is_called_back_or_refused(after):
    module = Net(after)
    with pytest.warns(UserWarning, match=f"this Net is called back on the host.*{UNTRACED[after]}") as told:
        fn = from_torch(module, image_shape=SHAPE)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert isinstance(fn, CallableLogits)
    if after is not noisy:
        np.testing.assert_array_equal(fn(IMAGES), from_callable(module, K)(IMAGES))
    with pytest.raises(ValueError, match=rf"cannot be computed in JAX.*{UNTRACED[after]}.*from_callable\(module, 5\)"):
        from_torch(module, image_shape=SHAPE, fallback=False)


@needs_torchax
def test_another_shape_is_tried_before_it_is_used():
    def noisy_when_small(logits, x):
        return logits if x.shape[-1] > 12 else noisy(logits, x)

    fn = from_torch(Net(noisy_when_small), image_shape=(16, 16, 3))
    with pytest.raises(ValueError, match=r"for images of shape \[3, 12, 12\] the traced .* differ by up to"):
        jm.pixel_value_fn(fn, IMAGE, 1, REGIONS)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    with pytest.raises(ValueError, match=r"this Sequential does not take images of shape \[3, 12, 12\]"):
        jm.pixel_value_fn(from_torch(flat, image_shape=(4, 4, 3)), IMAGE, 1, REGIONS)


def test_a_module_that_cannot_be_copied_is_called_back():
    module = Net()
    module.handle = sys.stderr
    with pytest.warns(UserWarning, match=r"no copy of it on the CPU can be made or run \(cannot pickle"):
        assert isinstance(from_torch(module, image_shape=SHAPE), CallableLogits)


def test_modules_without_numbers_and_other_things():
    with pytest.raises(ValueError, match=r"conv.weight is on the meta device, which has none"):
        from_torch(Net().to("meta"))
    with pytest.raises(ValueError, match=r"weight is still lazy: call the module on a batch"):
        from_torch(torch.nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"expected a torch.nn.Module, got OrderedDict; a state dict has weights"):
        from_torch(Net().state_dict())
    with pytest.raises(ValueError, match=r"expected a torch.nn.Module, got function; for a function .* from_callable"):
        from_torch(lambda images: images)


def test_a_module_where_a_function_of_jax_is_expected():
    module = Net().eval()
    with pytest.raises(ValueError, match=r"got Net, a PyTorch module.*from_torch\(module\).*from_callable\(module"):
        jm.pixel_value_fn(module, IMAGE, 1, REGIONS)
    with pytest.raises(ValueError, match=r"asks for the images' numbers.*conv2d.*from_torch\(module\)"):
        jm.pixel_value_fn(lambda images: module(images), IMAGE, 1, REGIONS)


def test_without_torchax(monkeypatch):
    def fail(name, *rest):
        raise ImportError("No module named 'torchax'")

    trace = importlib.import_module("jaxmoxi.bridges.torch_trace")
    trace.environment.cache_clear()
    monkeypatch.setattr(trace, "_import_torchax", lambda: fail("torchax"))
    with pytest.raises(ImportError, match=r"from_torch needs torchax: pip install 'jaxmoxi\[torch\]'"):
        from_torch(Net(), image_shape=SHAPE, fallback=False)
    with pytest.warns(UserWarning, match=r"called back on the host.*torchax cannot be imported.*jaxmoxi\[torch\]"):
        assert isinstance(from_torch(Net(), image_shape=SHAPE), CallableLogits)


@needs_torchax
def test_nothing_changes_for_the_rest_of_the_process():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torch(Net(), image_shape=SHAPE)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert torch.accelerator.is_available() == torch.cuda.is_available()
    assert "ENABLE_RUNTIME_UPTIME_TELEMETRY" not in os.environ
    assert not jax.config.jax_enable_x64
    assert type(torch.ones(1) + 1) is torch.Tensor
