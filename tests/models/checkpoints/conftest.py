import pytest

from support.torch_files import FORMATS


@pytest.fixture(params=FORMATS)
def written(request):
    return FORMATS[request.param]
