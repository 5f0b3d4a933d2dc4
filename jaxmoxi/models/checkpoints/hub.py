"""Classifiers of the Hugging Face hub: the files that one needs are fetched into the hub's own cache, and no others.

huggingface_hub (the extra `hub`) does the transfers, so its cache, progress bars and environment variables are those
that users know: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. It reads some of them at its import; here
they are read at every call, so that one that is set later counts too.

The branch of a model is written into the cache last. A download that was interrupted is therefore never taken for a
whole one, and the older commit stays in use until the newer one is there.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole
from jaxmoxi.models.checkpoints.hub_cache import (
    COMMIT,
    CONFIG,
    PROCESSOR,
    Cached,
    choose_weights,
    commit_of,
    find_cached,
    is_index,
    model_root,
    shards,
)
from jaxmoxi.models.checkpoints.json_file import MissingFileError
from jaxmoxi.models.checkpoints.torch_pickle import brief

PACKAGE = "huggingface_hub"
_TRUE = ("1", "ON", "YES", "TRUE")


class HubError(MissingFileError):
    """A model that the hub does not give.

    reason: what came; way_out: what to do. is_unknown: nothing is known of the name, which may be a mistyped path.
    """

    def __init__(self, reason: str, way_out: str, is_unknown: bool = False):
        super().__init__(f"{reason}; {way_out}")
        self.reason, self.way_out, self.is_unknown = reason, way_out, is_unknown


@contextmanager
def without_bars() -> Iterator[None]:
    """Downloads show no progress while the block runs."""
    if not is_installed():
        yield
        return
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def endpoint() -> str:
    """The address of the hub. Raises InputError for an HF_ENDPOINT that is no address."""
    address = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
        raise InputError(f"expected HF_ENDPOINT as an address such as https://huggingface.co; got {brief(address)}")
    return address


def why_offline() -> str | None:
    """The variable that keeps the hub's tools from the network, if one does."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return f"{variable}={os.environ[variable]}"
    constants = sys.modules.get(f"{PACKAGE}.constants")  # as it was when the package was imported
    return "HF_HUB_OFFLINE=1" if getattr(constants, "HF_HUB_OFFLINE", False) else None


def is_installed() -> bool:
    """Whether models can be downloaded."""
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ValueError:  # a module that has no spec stands in its place
        return False


def is_pinned(name: str, revision: str | None, cache: Path) -> bool:
    """Whether the cache has all files of a revision that is a commit, so that there is nothing to ask the hub for."""
    if revision is None or not COMMIT.fullmatch(revision):
        return False
    cached = find_cached(cache, name, revision)
    return cached is not None and (cached.folder / PROCESSOR).exists()


def fetch(name: str, revision: str | None, cache: Path, check: Callable[[Path], object] | None) -> Cached:
    """A model of the hub, after what it lacks in the cache has been downloaded.

    check: called with the path of `config.json` before the weights are fetched; raises for a network that is not read.
    Raises HubError for what the hub does not give, InputError for a repository that holds no classifier.
    """
    listing, commit = _ask(name, revision)
    root = model_root(cache, name)
    if CONFIG not in listing:
        raise InputError(f"{_page(name)} has no {CONFIG}; expected the repository of a classifier{_holds(listing)}")
    weights = choose_weights(listing)
    if weights is None:
        raise InputError(
            f"{_page(name)} has no weights that are read; expected model.safetensors, pytorch_model.bin or one other "
            f"file of safetensors, PyTorch or big_vision (.npz){_holds(listing)}"
        )
    config = _download(name, CONFIG, commit, cache)
    if check is not None:
        check(config)
    if PROCESSOR in listing:
        _download(name, PROCESSOR, commit, cache)
    path = _download(name, weights, commit, cache)
    if is_index(weights):
        for shard in shards(path):
            if shard in listing:
                _download(name, shard, commit, cache)
    if revision != commit and commit_of(root, revision) != commit:
        with suppress(OSError):  # a cache that cannot be written into serves all the same
            ref = root / "refs" / (revision or "main")
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_whole(ref, commit)
    return Cached(config.parent, None if is_index(weights) else weights, commit, True)


def _page(name: str) -> str:
    return f"{endpoint()}/{name}"


def _holds(listing: set[str]) -> str:
    shown = sorted(listing - {".gitattributes"}, key=lambda n: (n.count("/"), n))
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f". It has {', '.join(map(brief, shown[:12]))}{more}" if shown else ". It is empty"


def _ask(name: str, revision: str | None) -> tuple[set[str], str]:
    """(the files of a repository, the commit of the revision), in one request."""
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=endpoint(), library_name="jaxmoxi")
    odd = HubError(
        f"{endpoint()} does not answer as the hub does", "check HF_ENDPOINT, and the network's proxy or sign-in page"
    )
    with _one_error(name, revision, "the list of files"):
        try:
            info = api.model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except (TypeError, KeyError):
            raise odd from None
        except ValueError as error:
            if type(error).__module__.startswith(PACKAGE):
                raise
            raise odd from None  # no JSON
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise odd
    return {file.rfilename for file in info.siblings or ()}, info.sha


def _download(name: str, file: str, commit: str, cache: Path) -> Path:
    """The path of a file of a commit in the cache, downloaded if it is not there."""
    from huggingface_hub import hf_hub_download

    there = model_root(cache, name) / "snapshots" / commit / file
    if there.exists():
        return there
    with _one_error(name, commit, file, cache):
        cache.mkdir(parents=True, exist_ok=True)
        path = Path(
            hf_hub_download(
                name, file, revision=commit, cache_dir=str(cache), endpoint=endpoint(), library_name="jaxmoxi"
            )
        )
    _check_content(path, f"{file} of {name}")
    return path


def _check_content(path: Path, file: str) -> None:
    """Raises HubError for a large file whose content is not what its name in the cache, a SHA-256, says.

    The package compares sizes alone where it does not transfer by Xet.
    """
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not re.fullmatch(r"[0-9a-f]{64}", blob):
        return
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != blob:
        (path.parent / os.readlink(path)).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise HubError(f"the download of {file} is damaged (its SHA-256 is {found}, not {blob})", "load it again")


@contextmanager
def _one_error(name: str, revision: str | None, what: str, cache: Path | None = None) -> Iterator[None]:
    """Makes one HubError of whatever the hub's package raises for an answer, the network or the disk."""
    from huggingface_hub import errors

    # The package's own errors extend those of the HTTP client that it uses, which differs between its releases.
    transport, of_xet = errors.HfHubHTTPError.__bases__[0], getattr(errors, "XetDownloadError", RuntimeError)
    kinds = tuple(k for k in (transport, of_xet, OSError, RuntimeError, ValueError) if issubclass(k, Exception))
    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise InputError(f"expected the name of a model as org/name; got {brief(name)}: {_text(error)}") from None
    except kinds as error:
        raise _refusal(error, name, revision, what, cache) from None


def _refusal(error: Exception, name: str, revision: str | None, what: str, cache: Path | None) -> HubError:
    from huggingface_hub import errors, get_token

    where = endpoint()
    login = "set HF_TOKEN to a token of that account (or run: hf auth login)"
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{name} is gated on {where}", f"accept its conditions at {where}/{name}, then {login}")
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 401 and get_token() is None):
        return HubError(
            f"{where} has no model {name}, or keeps it private",
            f"check the name at {where}/{name}; for a private one set HF_TOKEN (or run: hf auth login)",
            is_unknown=True,
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{name} on {where} has no revision {brief(repr(revision))}",
            f"give a branch, a tag or a commit; {where}/{name}/tree/main lists them",
        )
    if isinstance(error, errors.DisabledRepoError):
        return HubError(f"{where} has disabled access to {name}", "take another model")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return HubError(f"{name} on {where} lists {what} and does not have it", "try again later")
    if status is not None:
        return _of_status(status, where, name, login)
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, errors.HfHubHTTPError):
        return _of_status(cause.response.status_code, where, name, login)
    number = (
        cause.errno if isinstance(cause, OSError) and not isinstance(cause, ConnectionError | TimeoutError) else None
    )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return HubError(
            f"{what} of {name} does not fit into {cache}: {os.strerror(number)}",
            "make room, or name another place with HF_HOME or cache_dir (--cache-dir)",
        )
    if number is not None and number > 0:
        return HubError(
            f"{what} of {name} cannot be written into {cache}: {os.strerror(number)}",
            "name another place with HF_HOME or cache_dir (--cache-dir)",
        )
    sizes = re.search(r"should be of size (\d+) but has size (\d+)", str(cause))
    if sizes:
        return HubError(
            f"the download of {what} of {name} is not whole ({sizes[2]} bytes of {sizes[1]})", "load it again"
        )
    return HubError(
        f"{where} cannot be reached for {what} of {name} ({type(cause).__name__}: {_text(cause)})",
        "check the network, the proxy and HF_ENDPOINT",
        is_unknown=True,
    )


def _of_status(status: int, where: str, name: str, login: str) -> HubError:
    """The error for an answer of the hub that tells by its number alone what is wrong."""
    if status == 401:
        return HubError(f"{where} does not accept the token", "set HF_TOKEN to a valid one, or unset it")
    if status == 403:
        return HubError(f"{where} forbids access to {name}", f"ask for it at {where}/{name}, then {login}")
    if status == 429:
        return HubError(f"{where} has had too many requests", "wait some minutes, or set HF_TOKEN for a higher limit")
    return HubError(f"{where} answers {status} for {name}", "try again later, and check HF_ENDPOINT")


def _text(error: BaseException) -> str:
    return brief(" ".join(str(error).split()).rstrip(".")) or "no reason given"
