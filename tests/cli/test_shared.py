"""What the commands share: the errors that become one line, and how a process starts."""

import jax
import pytest

from jaxmoxi.cli import shared as _command
from jaxmoxi.errors import InputError


@pytest.mark.parametrize("error", [InputError("x"), OSError("x"), ImportError("x"), MemoryError("x")])
def test_errors_for_users_become_one_line(error):
    with pytest.raises(_command.CommandError, match="--option: x"), _command.one_line("--option: "):
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), KeyError("x"), FloatingPointError("x")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, _command.one_line("--option: "):
        raise error
    assert caught.value is error


@pytest.fixture
def cache_setting():
    """JAX's setting as it was, whatever the test does."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_setting")
def test_the_compilation_cache_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _command.start_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxmoxi")
    assert (tmp_path / "jaxmoxi").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    _command.start_compilation_cache()  # set already, by JAX_COMPILATION_CACHE_DIR or by hand
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxmoxi")


@pytest.mark.usefixtures("cache_setting")
def test_no_home_to_write_to_is_no_error(monkeypatch, tmp_path):
    monkeypatch.undo()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    _command.start_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
