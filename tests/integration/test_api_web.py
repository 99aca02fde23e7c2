"""The page in a real browser against a real server process: what a visitor does, sees and is kept from.

The checks themselves are in web_check_*.mjs. Needs Debian's chromium, node, and the npm package playwright-core under
`browser/` in this environment (or in the folder that GRAPNEL_PLAYWRIGHT names).
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from retrieval.chunking import ChunkingConfig
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.types import Document

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("web_check.mjs")
PARTS = ("web_check_page.mjs", "web_check_search.mjs")
MODULES = Path(os.environ.get("GRAPNEL_PLAYWRIGHT", f"{sys.prefix}/browser"))
CHECKS = [
    name
    for part in PARTS
    for name in re.findall(r'^  "(.+)": async \(', PROGRAM.with_name(part).read_text(encoding="utf-8"), re.MULTILINE)
]
READY_S = 60.0

DOCUMENTS = [
    Document(
        "<script>document.title='owned'</script>",
        "<img src=x onerror=\"document.title='owned'\"> otters & <b>bold</b> </script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)> otter",
        {"<b>k</b>": "<i>v</i>", "url": "javascript:alert(1)", "kind": "hostile"},
    ),
    Document("x" * 300, "A document about otters with an id of three hundred letters. " * 3, "", {"kind": "long"}),
    Document("a/../b?q=1#frag%20 ü", "Otters, under an id full of slashes and marks.", "T" * 400, {"w": "w" * 400}),
    Document("rtl-1", "הלוטרה היא יונק מים. otters אוהבות נהרות ודגים.", "הלוטרות של הנהר", {"kind": "rtl"}),
    Document("rtl-2", "ثعالب الماء otters تعيش في الأنهار وتأكل السمك.", "ثعالب الماء", {"kind": "rtl"}),
    Document(
        "evil\u202egnp.exe", "An id that turns its end around: otters \u202e reversed.", "Turned", {"kind": "bidi"}
    ),
    Document(
        "emoji",
        "🦦🦦🦦 The otter emoji; an otter 👩‍👩‍👧, then otters; "
        "\U0001d57a\U0001d599\U0001d599\U0001d58a\U0001d597 and otter.",
        "🦦 mixed",
        {"tags": ["a", 3]},
    ),
    Document("controls", "otters\x07 bell\x1b[31m red \u200b zero width", "con\x1btrol", {}),
    Document("..", "Otters, in a document whose id is two dots.", "", {}),
    Document("plain", "A plain document on otters.", "Otters", {"kind": "plain", "year": 2020, "ok": True}),
]
FRESH = Document("fresh", "A river in spring.", "Spring", {"kind": "fresh"})
LONG = " ".join(
    f"Paragraph {number} tells of {'a walrus' if number == 120 else 'seals'} on the ice.\n\n" for number in range(200)
)


def _config(**options: Any) -> CollectionConfig:
    dense = DenseField(EncoderConfig(kind="hashing", dim=256))
    return CollectionConfig(fields={"dense": dense, "lexical": LexicalConfig()}, **options)


def _server_toml(keys: Mapping[str, tuple[str, str]]) -> str:
    hashing = 'kind = "hashing"\ndim = 256\n'
    tables = [f"[encoders.default]\n{hashing}", f"[rerankers.similarity]\n[rerankers.similarity.encoder]\n{hashing}"]
    for name, (secret, rights) in keys.items():
        digest = hashlib.sha256(secret.encode()).hexdigest()
        tables.append(f'[[keys]]\nname = "{name}"\nsha256 = "{digest}"\n{rights}\n')
    return "\n".join(tables)


KEYS = {
    "admin": ("gk_" + secrets.token_urlsafe(32), 'scopes = ["admin"]'),
    "reader": ("gk_" + secrets.token_urlsafe(32), 'scopes = ["read"]'),
    "tenant": (
        "gk_" + secrets.token_urlsafe(32),
        'scopes = ["read"]\nfilter = { type = "eq", key = "kind", value = "rtl" }',
    ),
}


@pytest.fixture(scope="module")
def chromium() -> str:
    """Return the browser's path; skips where the browser or what drives it is missing."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium: apt-get install chromium")
    if shutil.which("node") is None:
        pytest.skip("no node: the browser is driven by playwright-core, which runs on it")
    if not (MODULES / "node_modules" / "playwright-core").is_dir():
        pytest.skip(f"no playwright-core: npm install --prefix {MODULES} playwright-core")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `grapnel serve` on a free port over two small collections, and return its URL once it is ready."""
    folder = tmp_path_factory.mktemp("web")
    root = folder / "root"
    root.mkdir()
    build(root / "otters", DOCUMENTS, _config())
    with Collection.open(root / "otters", writable=True) as collection:
        collection.add([FRESH])
    build(
        root / "seals",
        [Document("long", LONG, "Ice")],
        _config(chunking=ChunkingConfig("tokens", max_tokens=40, overlap=8)),
    )
    (folder / "server.toml").write_text(_server_toml(KEYS))
    options = ["--data", root, "--config", folder / "server.toml", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "serve", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield _ready(process)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=30)
        assert process.stderr is not None
        process.stderr.close()
        assert status == 0, f"the server ended with status {status} when it was asked to stop"


def _ready(process: "subprocess.Popen[str]") -> str:
    """Return the URL that the server says it listens at, once it answers that it is ready."""
    assert process.stderr is not None
    said: list[str] = []
    watchdog = threading.Timer(READY_S, process.kill)  # ends the loop below
    watchdog.start()
    for line in process.stderr:
        said.append(line)
        found = re.search(r"http://[\w.\[\]:]+:\d+", line)
        if found:
            break
    else:
        pytest.fail(f"the server said no address:\n{''.join(said)}")
    watchdog.cancel()
    threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()  # a full pipe would stop it
    return found[0]


@pytest.fixture(scope="module")
def outcome(chromium: str, server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Run all checks in one browser; return what failed in each."""
    _wait_ready(server)
    settings = {
        "modules": str(MODULES),
        "chromium": chromium,
        "url": server,
        "keys": {name: secret for name, (secret, _) in KEYS.items()},
        "shots": str(tmp_path_factory.mktemp("shots")),
    }
    run = subprocess.run(
        ["node", str(PROGRAM), json.dumps(settings)], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, str | None] = json.loads(run.stdout)
    return result


def _wait_ready(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:  # noqa: S310  our own server
                if answer.status == 200:
                    return
        except OSError:  # not listening yet, or 503 while models load
            threading.Event().wait(0.1)
    pytest.fail("the server did not become ready")


def test_program_holds_the_checks_that_are_listed(outcome: dict[str, str | None]) -> None:
    assert list(outcome) == CHECKS
    assert len(CHECKS) > 20


@pytest.mark.parametrize("name", CHECKS)
def test_page(name: str, outcome: dict[str, str | None]) -> None:
    assert outcome[name] is None, outcome[name]


def test_page_names_nothing_outside() -> None:
    """No address of another host, no markup made of strings, no inline code or style in any file of the page."""
    for path in sorted((ROOT / "api" / "web").iterdir()):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, path.name
        code = re.sub(r"//.*", "", text)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(|DOMParser", code
        )
        if path.suffix == ".html":
            assert not re.search(r"\sstyle=|\son\w+=|<style|<script>", text)
