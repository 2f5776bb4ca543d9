"""The hub: a real one on this machine, downloaded from with progress, breaks and refusals."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.errors import CheckpointError, EngineClosed
from pipeline.hub import download, tell_nobody, whole_commit

COMMIT = "c" * 40
FILES = {
    "unet/config.json": b"{}",
    "unet/weights.safetensors": bytes(range(256)) * 50_000,
    "unet/weights.bin": b"not asked for",
}
SAID = {"authors": [], "date": "2024-03-25T00:00:00.000Z", "title": "init", "message": ""}
SOURCE = Source("some/body", COMMIT, ("unet/*.json", "unet/*.safetensors"))


@dataclass
class Hub:
    """What the hub on this machine does and saw."""

    breaks: int = 0
    """How many answers with weights still break off half way."""
    asked: list[str] = field(default_factory=list)
    """Each download of weights by the range that it asked for."""


def make_handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """Return what answers as the hub does."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.begin(FILES[self.path.partition(f"/resolve/{COMMIT}/")[2]])

        def do_GET(self) -> None:
            if self.path == "/api/models/some/body/commits/main":
                commits = [{"id": commit, **SAID} for commit in ("b" * 40, COMMIT)]
                self.begin(json.dumps(commits).encode(), is_whole=True)
                return
            if f"/tree/{COMMIT}" in self.path:
                rows = [
                    {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                    for path, content in FILES.items()
                ]
                self.begin(json.dumps(rows).encode(), is_whole=True)
                return
            content = FILES.get(self.path.partition(f"/resolve/{COMMIT}/")[2])
            if content is None:
                self.send_error(404)
                return
            wanted = self.headers.get("Range", "")
            start = int(wanted[6:-1]) if wanted else 0
            breaks = len(content) > 100 and hub.breaks > 0
            if len(content) > 100:
                hub.asked.append(wanted)
                hub.breaks -= breaks
            self.begin(content, start)
            self.wfile.write(content[start : (start + len(content)) // 2 if breaks else None])

        def begin(self, content: bytes, start: int = 0, is_whole: bool = False) -> None:
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                end = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            self.end_headers()
            if is_whole:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and a cache of its own."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub))
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path))
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.DOWNLOAD_CHUNK_SIZE", 1 << 20)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def read(folder: Path) -> dict[str, bytes]:
    """Return a folder's files."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


WANTED = {path: content for path, content in FILES.items() if not path.endswith(".bin")}


def test_a_download_is_told_and_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    """What is needed comes, nothing else, with its share; later it is found without a network."""
    told: list[tuple[str, float | None]] = []
    folder = download(SOURCE, "put it there", lambda *news: told.append(news))
    assert read(folder) == WANTED
    assert told[0] == ("looking for some/body@ccccccc", None)
    shares = [share for text, share in told if text == "downloading some/body@ccccccc"]
    assert len(shares) > 4
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert shares[-1] == 1.0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert download(SOURCE, "put it there", tell_nobody) == folder
    assert hub.asked == [""]


@pytest.mark.usefixtures("hub")
def test_a_short_commit_is_asked_of_the_hub():
    """Which of a repository's commits begins so is the hub's to say; none is an error."""
    assert whole_commit(Source("some/body", COMMIT[:7])) == COMMIT
    assert read(download(replace(SOURCE, revision=COMMIT[:7]), "put it", tell_nobody)) == WANTED
    with pytest.raises(ValueError, match="0 of its commits begin with abcdef0"):
        whole_commit(Source("some/body", "abcdef0"))


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Hub):
    """After a lost connection only the rest is asked for, and the file is whole."""
    hub.breaks = 2
    assert read(download(SOURCE, "put it there", tell_nobody)) == WANTED
    assert len(hub.asked) == 3
    assert re.fullmatch(r"bytes=\d{7}-", hub.asked[1])
    assert re.fullmatch(r"bytes=\d{7,8}-", hub.asked[2])


def test_a_hub_that_always_breaks_off_is_one_sentence(hub: Hub):
    """Whoever cannot download is told why and what to put where; the next try has all of it."""
    hub.breaks = 100
    with pytest.raises(CheckpointError, match=r"downloaded \(.+\); put it there$") as caught:
        download(SOURCE, "put it there", tell_nobody)
    assert "\n" not in str(caught.value)
    hub.breaks = 0
    assert read(download(SOURCE, "put it there", tell_nobody)) == WANTED


def test_whoever_is_told_may_end_a_download(hub: Hub):
    """What the listener raises comes out, and the rest is not fetched."""

    def stop(text: str, share: float | None) -> None:
        if share is not None and share > 0.1:
            raise EngineClosed("the server is stopping")

    with pytest.raises(EngineClosed):
        download(SOURCE, "put it there", stop)
    assert read(download(SOURCE, "put it there", tell_nobody)) == WANTED
