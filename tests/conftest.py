import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Lets wrong types through to the package's own messages, which users without the type checker see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
