"""Explain a PyTorch module traced into JAX: compiled with the search, sharded with it, and with gradients.

    pip install 'jaxmoxi[torch]'
    python examples/torch_module.py

For accelerators, and for methods that need gradients. On a CPU a convolutional network is faster called back on the
host, `jm.from_callable(module, num_classes)`, and that also takes what can run nowhere else:

    # an ONNX file (pip install onnxruntime)
    session = onnxruntime.InferenceSession("net.onnx")
    name = session.get_inputs()[0].name
    logits_fn = jm.from_callable(lambda images: session.run(None, {name: images})[0], 10, channels_first=True)

    # a TensorFlow SavedModel
    served = tf.saved_model.load("folder").signatures["serving_default"]
    name = list(served.structured_input_signature[1])[0]
    logits_fn = jm.from_callable(lambda images: {k: v.numpy() for k, v in served(**{name: images}).items()}, 10)
"""

# pyright: reportMissingImports=false
import jax
import torch

import jaxmoxi as jm

torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 5),
    torch.nn.BatchNorm2d(16),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Dropout(0.5),
    torch.nn.Linear(16, 10),
)
logits_fn = jm.from_torch(net, image_shape=(32, 32, 3))  # in evaluation mode; compared with net first

image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
v = jm.pixel_value_fn(logits_fn, image, 3, jm.grid_regions(32, 32, rows=4, cols=4), fill="mean")
print("traced:", jm.greedy_insertion(v, 16).order.tolist())
called = jm.pixel_value_fn(jm.from_callable(net, 10), image, 3, v.regions, fill="mean")
print("called back:", jm.greedy_insertion(called, 16).order.tolist())
slope = jax.grad(lambda x: logits_fn(x[None])[0, 3])(image)
print("largest gradient:", f"{float(abs(slope).max()):.4f}")
