"""A small Hugging Face hub on loopback, which serves folders as the real one answers huggingface_hub."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".npz", ".h5", ".msgpack", ".onnx")  # in Git LFS, so known by their SHA-256


def commit_of(folder: Path) -> str:
    """A commit that changes with the files."""
    digest = hashlib.sha1()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


class Hub:
    """The repositories, what is wrong with them, and what was asked.

    repositories: the folder of each revision of each name. requests: (method, path). tokens: of each request.
    gated, private: names that need `token`. moved: the new name of a model that was renamed. status: answers every
    request with this number. page: answers with a web page. cut: files whose content is sent without its last bytes.
    flipped: files whose content differs in a bit.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, Path]] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str | None] = []
        self.gated, self.private, self.cut, self.flipped = set(), set(), set(), set()
        self.moved: dict[str, str] = {}
        self.token, self.status, self.url, self.page = "hf_good", None, "", False

    def add(self, name, folder, revision="main"):
        self.repositories.setdefault(name, {})[revision] = folder
        return commit_of(folder)

    def fetched(self):
        """The files whose content was asked for, and those only asked about, in order."""
        content = [path.rsplit("/", 1)[1] for method, path in self.requests if method == "GET" and "/resolve/" in path]
        about = [path.rsplit("/", 1)[1] for method, path in self.requests if method == "HEAD"]
        return content, about

    def folder(self, name, revision):
        """The folder of a revision: a branch, a tag or a commit."""
        revisions = self.repositories[name]
        return revisions.get(revision) or next((f for f in revisions.values() if commit_of(f) == revision), None)

    def answer(self, path, token):
        """(status, headers, content) of a request."""
        if self.page:
            return 200, {"Content-Type": "text/html"}, b"<html>Please sign in to the hotel's network</html>"
        if self.status is not None:
            return self.status, {}, b""
        if token is not None and token != self.token:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"{}"
        parts = [unquote(p) for p in path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) in (4, 6):
            name, revision, file = "/".join(parts[2:4]), (parts[5] if len(parts) == 6 else "main"), None
        elif len(parts) > 4 and parts[2] == "resolve":
            name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        else:
            return 404, {}, b""
        if name in self.moved:
            return 307, {"Location": path.replace(name, self.moved[name])}, b""
        if name not in self.repositories or (name in self.private and token is None):
            return 401 if token is None else 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        folder = self.folder(name, revision)
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        commit = commit_of(folder)
        if file is None:
            files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            info = {"id": name, "modelId": name, "sha": commit, "siblings": [{"rfilename": f} for f in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        if name in self.gated and token is None:
            return 401, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit}, b"{}"
        if not (folder / file).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"{}"
        content = (folder / file).read_bytes()
        if file.endswith(LARGE):
            etag = hashlib.sha256(content).hexdigest()
        else:
            etag = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'}
        headers["X-Linked-Size"] = str(len(content))
        if file in self.cut:
            content = content[:-10]
        if file in self.flipped:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return 200, headers, content


@contextmanager
def serving(hub: Hub):
    """The hub at its `url`, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path, bearer = urlsplit(self.path).path, self.headers.get("Authorization")
            token = None if bearer is None else bearer.removeprefix("Bearer ")
            if "agent-harnesses" not in path:
                hub.requests.append((self.command, path))
                hub.tokens.append(token)
            status, headers, content = hub.answer(path, token)
            begun = self.headers.get("Range")
            if begun is not None and status == 200:
                status, content = 206, content[int(begun.removeprefix("bytes=").partition("-")[0]) :]
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
