"""Style that is checked, not hoped for: the public API documents itself, and imports run one way."""

import ast
import dataclasses
import inspect
import sys
from pathlib import Path

import pytest

import jaxmoxi as jm

PACKAGE = Path(jm.__file__).parent
LIST = [
    "errors", "escape", "pytrees", "guards", "types", "compiling", "photos", "files", "regions", "kernels", "models",
    "games", "moxi", "interactions", "search", "attribution", "metrics", "p2p", "plot", "study", "bridges", "cli",
]  # fmt: skip
CORE = [r for r in LIST[: LIST.index("search")] if r != "models"]
CORE_MAY_IMPORT = {"jax", "numpy", "jaxtyping"}


def public_objects():
    for owner in (
        jm,
        jm.models,
        jm.games,
        jm.interactions,
        jm.search,
        jm.attribution,
        jm.metrics,
        jm.plot,
        jm.p2p,
        jm.p2p.data,
        jm.study,
    ):
        for name in owner.__all__:
            thing = getattr(owner, name)
            if not inspect.ismodule(thing) and not name.isupper():  # constants have comments
                yield f"{owner.__name__}.{name}", thing


PUBLIC = dict(public_objects())
FUNCTIONS = {name: thing for name, thing in PUBLIC.items() if inspect.isfunction(thing)}


@pytest.mark.parametrize("name", PUBLIC)
def test_is_documented(name):
    thing = PUBLIC[name]
    own = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert own, f"{name} has no docstring"
    assert not own.startswith(f"{thing.__name__}("), f"{name} has the docstring dataclasses made up"
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        return
    for method_name, method in vars(thing).items() if inspect.isclass(thing) else ():
        if not method_name.startswith("_") and inspect.isfunction(method):
            assert method.__doc__, f"{name}.{method_name} has no docstring"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_typed_and_keyword_only_where_it_has_defaults(name):
    signature = inspect.signature(FUNCTIONS[name])
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}({parameter.name})"
        optional = parameter.default is not inspect.Parameter.empty
        # One exception: the regions of token_value_fn stand where those of pixel_value_fn do.
        if optional and (name, parameter.name) != ("jaxmoxi.token_value_fn", "regions"):
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}({parameter.name}) is positional"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_key_comes_first(name):
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters)
    assert "key" not in parameters or parameters[0] == "key"


def imports(path):
    """(module imported, whether at the top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            yield node.module, id(node) in top
            if node.module == "jaxmoxi":
                for alias in node.names:
                    yield f"jaxmoxi.{alias.name}", id(node) in top


FILES = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}
TOP = {"__init__", "__main__"}  # the package's own door, which may name everything


def room(name):
    return name.split("/")[0]


def test_every_file_has_a_place_in_the_list():
    assert {room(name) for name in FILES} <= set(LIST) | TOP


@pytest.mark.parametrize("name", [name for name in FILES if name not in TOP])
def test_imports_run_downwards(name):
    place = LIST.index(room(name))
    for module, top in imports(FILES[name]):
        parts = module.split(".")
        if parts[0] != "jaxmoxi":
            continue
        if len(parts) == 1:
            assert not top, f"{name} imports the whole package at its top"
        elif parts[1] in LIST:
            assert LIST.index(parts[1]) <= place, f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in CORE])
def test_the_core_needs_jax_and_numpy_alone(name):
    for module, top in imports(FILES[name]):
        root = module.split(".")[0]
        allowed = CORE_MAY_IMPORT | {"jaxmoxi"}
        if not top:  # what is imported where it is called: SLIC's other backend, the reader of photos
            allowed |= {"regions": {"skimage"}, "photos": {"PIL"}}.get(room(name), set())
        assert root in allowed or root in sys.stdlib_module_names, f"{name} imports {module}"


def test_nothing_unpickles():
    for file in PACKAGE.rglob("*.py"):
        for module, _ in imports(file):
            assert module.split(".")[0] not in {"torch", "pickle", "dill", "cloudpickle", "joblib"}, (
                f"{file} imports {module}"
            )
