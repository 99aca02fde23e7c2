"""The page in a real browser against a real server process: what a visitor does, sees and is kept from.

The checks themselves are in web_check_*.mjs. Needs Debian's chromium, node, and the npm package playwright-core under
`browser/` in this environment (or in the folder that GRAPNEL_PLAYWRIGHT names).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
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


HASHING: dict[str, Any] = {"kind": "hashing", "dim": 256}
TABLES = {"encoders": {"default": HASHING}, "rerankers": {"similarity": {"encoder": HASHING}}}
KEYS = {
    "admin": {"scopes": ["admin"]},
    "reader": {"scopes": ["read"]},
    "tenant": {"scopes": ["read"], "filter": {"type": "eq", "key": "kind", "value": "rtl"}},
}


def _config(**options: Any) -> CollectionConfig:
    dense = DenseField(EncoderConfig(**HASHING))
    return CollectionConfig(fields={"dense": dense, "lexical": LexicalConfig()}, **options)


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
def server(start_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of two small collections."""
    root = tmp_path_factory.mktemp("web")
    build(root / "otters", DOCUMENTS, _config())
    with Collection.open(root / "otters", writable=True) as collection:
        collection.add([FRESH])
    build(
        root / "seals",
        [Document("long", LONG, "Ice")],
        _config(chunking=ChunkingConfig("tokens", max_tokens=40, overlap=8)),
    )
    return start_server(TABLES, KEYS, data=root)


@pytest.fixture(scope="module")
def outcome(chromium: str, server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Run all checks in one browser; return what failed in each."""
    settings = {
        "modules": str(MODULES),
        "chromium": chromium,
        "url": server.url,
        "keys": server.secrets,
        "shots": str(tmp_path_factory.mktemp("shots")),
    }
    run = subprocess.run(
        ["node", str(PROGRAM), json.dumps(settings)], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, str | None] = json.loads(run.stdout)
    return result


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
