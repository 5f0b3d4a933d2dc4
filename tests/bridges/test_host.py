"""NumPy and PyTorch models, called back from compiled code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxmoxi as jm
from jaxmoxi.bridges import from_callable
from support.games import every_coalition

IMAGE = jax.random.uniform(jax.random.key(0), (8, 8, 3))
IMAGES = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
REGIONS = jm.grid_regions(8, 8, rows=2, cols=3)
P, K = 6, 5


WEIGHTS = np.random.default_rng(0).normal(size=(8 * 8 * 3, K)).astype(np.float32)


def numpy_model(images):
    assert type(images) is np.ndarray
    assert images.dtype == np.float32
    images -= 0.5  # as preprocessing written for arrays of its own may do
    return np.tanh(images.reshape(len(images), -1) @ WEIGHTS).astype(np.float64)


def jax_model(images):
    return jnp.tanh((images - 0.5).reshape(len(images), -1) @ WEIGHTS)


def test_a_callable_gives_what_the_same_model_in_jax_gives():
    fn = from_callable(numpy_model, K)
    np.testing.assert_allclose(fn(IMAGES), jax_model(IMAGES), rtol=1e-4, atol=1e-5)
    ours = jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, fill="mean")
    theirs = jm.pixel_value_fn(jax_model, IMAGE, 1, REGIONS, fill="mean")
    a, b = (jm.greedy_insertion(v, P, batch_size=4) for v in (ours, theirs))
    np.testing.assert_array_equal(a.order, b.order)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-4)
    masks = every_coalition()
    np.testing.assert_allclose(jm.evaluate(ours, masks, batch_size=10), jm.evaluate(theirs, masks), atol=1e-4)


def test_a_callable_under_jit_and_vmap():
    batches = []

    def model(images):
        batches.append(len(images))
        return numpy_model(images)

    def order(fn):
        def one(image):
            return jm.greedy_insertion(jm.pixel_value_fn(fn, image, 1, REGIONS), P, batch_size=6).order

        return jax.jit(jax.vmap(one))(IMAGES)

    np.testing.assert_array_equal(order(from_callable(model, K)), order(jax_model))
    assert batches[0] == 1  # the trial
    assert set(batches[1:]) == {6 * len(IMAGES)}  # a chunk of every image at once


def test_a_callable_on_every_device():
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    masks = every_coalition()
    sharded = jm.shard_coalitions(jm.pixel_value_fn(from_callable(numpy_model, K), IMAGE, 1, REGIONS), mesh)
    expected = jm.evaluate(jm.pixel_value_fn(jax_model, IMAGE, 1, REGIONS), masks)
    np.testing.assert_allclose(jm.evaluate(sharded, masks), expected, atol=1e-4)


def test_channels_first_and_large_images():
    shapes = []

    def model(images):
        shapes.append(images.shape)
        assert images.flags.c_contiguous
        return images.mean((2, 3)) @ np.arange(3 * K, dtype=np.float32).reshape(3, K)

    image = jax.random.uniform(jax.random.key(2), (224, 200, 3))
    v = jm.pixel_value_fn(
        from_callable(model, K, channels_first=True), image, 1, jm.grid_regions(224, 200, rows=2, cols=3)
    )
    masks = every_coalition()[-16:]
    expected = jm.pixel_value_fn(
        lambda x: x.mean((1, 2)) @ jnp.arange(3.0 * K).reshape(3, K),
        image,
        1,
        jm.grid_regions(224, 200, rows=2, cols=3),
    )
    np.testing.assert_allclose(jm.evaluate(v, masks, batch_size=8), jm.evaluate(expected, masks), rtol=1e-4, atol=1e-4)
    assert set(shapes) == {(1, 3, 224, 200), (3, 3, 224, 200), (8, 3, 224, 200)}  # tried alone and in threes at first


def test_weights_changed_in_place_compile_nothing():
    weights = WEIGHTS.copy()
    fn = from_callable(lambda images: images.reshape(len(images), -1) @ weights, K)
    compiled = jax.jit(lambda v, m: v(m))
    v = jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, payoff="logit")
    before = compiled(v, jnp.ones((1, P), bool))
    weights *= 2
    after = compiled(jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, payoff="logit"), jnp.ones((1, P), bool))
    np.testing.assert_allclose(after, before * 2, rtol=1e-5)
    assert compiled._cache_size() == 1


def test_a_callable_that_computes_in_jax():
    fn = from_callable(lambda images: np.asarray(jnp.asarray(images).mean((1, 2))), 3)
    traced = jax.jit(lambda image: jm.pixel_value_fn(fn, image, 1, REGIONS, payoff="logit").image)(IMAGE)
    np.testing.assert_array_equal(traced, IMAGE)  # the trial call, inside a trace, met no tracer


def test_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(144, K)
    )

    def logits(images):
        with torch.no_grad():
            return model(torch.from_numpy(images))

    model.eval()
    fn = from_callable(logits, K, channels_first=True)
    expected = logits(np.asarray(IMAGES).transpose(0, 3, 1, 2).copy()).numpy()
    np.testing.assert_allclose(jax.jit(fn)(IMAGES), expected, rtol=1e-4, atol=1e-5)
    r = jm.greedy_deletion(jm.pixel_value_fn(fn, IMAGE, 1, REGIONS), P)
    assert sorted(r.order.tolist()) == list(range(P))

    with_gradients = from_callable(lambda images: model(torch.from_numpy(images)), K, channels_first=True)
    with pytest.raises(ValueError, match=r"got Tensor .*torch.no_grad"):
        jm.pixel_value_fn(with_gradients, IMAGE, 1, REGIONS)
    model.train()
    with pytest.raises(ValueError, match=r"this Sequential is in training: call its eval\(\)"):
        from_callable(logits, K)


def torch_net(torch):
    """Dropout and batch normalisation, in training mode but for one part."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Dropout(0.5),
        torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, K),
    )  # fmt: skip
    model.train()
    model[4].eval()
    return model


def test_a_pytorch_module_runs_in_evaluation_and_stays_as_it_was():
    torch = pytest.importorskip("torch")
    model = torch_net(torch)
    modes = [part.training for part in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    v = jm.pixel_value_fn(from_callable(model, K), IMAGE, 1, REGIONS)
    first, second = jm.greedy_insertion(v, P), jm.greedy_insertion(v, P)
    np.testing.assert_array_equal(first.values, second.values)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(np.asarray(IMAGES).transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(from_callable(model, K)(IMAGES), expected, rtol=1e-4, atol=1e-5)
    half = from_callable(model.to(torch.bfloat16), K)  # its own dtype is respected
    np.testing.assert_allclose(half(IMAGES), expected, atol=0.1)


def test_a_pytorch_module_in_training_is_found_before_it_is_called():
    torch = pytest.importorskip("torch")
    model = torch_net(torch)
    called = []

    class Holder:
        def __init__(self):
            self.parts = {"net": [model]}

        def predict(self, images):
            called.append(1)
            return self.parts["net"][0](torch.from_numpy(images)).detach()

    def plain(images, net=model):
        called.append(1)
        return net(torch.from_numpy(images)).detach()

    held = Holder()
    for fn in (
        lambda images: model(torch.from_numpy(images)),
        Holder().predict,
        lambda images, holder=held: holder.predict(images),
        plain,
        functools.partial(plain, net=model),
        functools.lru_cache(plain),
    ):
        with pytest.raises(ValueError, match=r"this Sequential is in training: call its eval\(\), or give the module"):
            from_callable(fn, K, channels_first=True)
    assert not called
    model.eval()
    assert from_callable(plain, K, channels_first=True)(IMAGES).shape == (len(IMAGES), K)


def test_hidden_dropout_in_a_callable_is_noticed():
    def noisy(images):
        return images.mean((1, 2)) @ np.ones((3, K)) + np.random.default_rng().normal(size=(len(images), K))

    with pytest.raises(ValueError, match=r"same image two answers in one batch.*training mode"):
        jm.pixel_value_fn(from_callable(noisy, K), IMAGE, 1, REGIONS)


def test_outputs_of_pytorch_in_any_form():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self, form):
            super().__init__()
            self.head, self.form = torch.nn.Linear(3, K), form

        def forward(self, images):
            logits = self.head(images.mean((2, 3)))
            return {"dict": {"logits": logits, "hidden": images}, "tuple": (logits, images), "plain": logits}[self.form]

    torch.manual_seed(0)
    nets = {form: Net(form) for form in ("plain", "dict", "tuple")}
    for net in nets.values():
        net.load_state_dict(nets["plain"].state_dict())
        np.testing.assert_array_equal(from_callable(net, K)(IMAGES), from_callable(nets["plain"], K)(IMAGES))


def test_what_a_callable_must_return(unchecked):
    for returned, message in (
        (lambda n: np.zeros((n, K + 1)), r"expected fn to return logits of shape \[1, 5\].*got shape \[1, 6\]"),
        (lambda n: np.zeros((n, K)).squeeze(), r"got shape \[5\]"),
        (lambda n: ["a"] * n, r"expected fn to return what numpy.asarray takes.*got list"),
    ):
        fn = from_callable(lambda images, returned=returned: returned(len(images)), K)
        with pytest.raises(ValueError, match=message):
            jm.pixel_value_fn(fn, IMAGE, 1, REGIONS)
    later = from_callable(lambda images: np.zeros((len(images), K)) if len(images) == 1 else np.zeros((2, 2)), K)
    with pytest.raises(Exception, match=r"expected fn to return logits of shape \[4, 5\]"):
        jax.block_until_ready(jax.jit(later)(IMAGES))
    with pytest.raises(ValueError, match="num_classes must be at least 1; got 0"):
        from_callable(numpy_model, 0)
    with pytest.raises(ValueError, match="expected a function of images.*got int"):
        from_callable(3, K)
    with pytest.raises(ValueError, match="expected fn to be hashable"):
        from_callable(type("F", (), {"__hash__": None, "__call__": lambda self, x: x})(), K)
