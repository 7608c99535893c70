"""Each kind of preview in a real browser, looked at."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import pytest

from .previewed import inner_frame, open_preview

PYTHON = '''"""Monthly totals of the weather."""
import csv
from collections import defaultdict


def totals(path: str) -> dict[str, float]:
    """Give the rain of each month, in millimetres."""
    sums: dict[str, float] = defaultdict(float)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            sums[row["date"][:7]] += float(row["precipitation"])  # 2015-12
    return dict(sums)


if __name__ == "__main__":
    wettest = max(totals("seattle-weather.csv").items(), key=lambda item: item[1])
    print(f"wettest month: {wettest[0]} with {wettest[1]:.1f} mm", "a very long line, " * 12)
'''
MARKDOWN = """---
title: hidden
---
# Seattle weather

The **wettest** month was *December 2015* with `284.5 mm`. See the [source](https://example.org/data) or
[jump to the code](#code).

| month | rain (mm) | days |
|:------|----------:|:----:|
| 2015-12 | 284.5 | 23 |
| 2014-03 | 240.0 | 20 |

- [x] read the data
- [ ] draw the chart

> Rain is measured at the airport.[^1]

[^1]: Sea-Tac, 122 m above the sea.

## Code

```python
def wettest(rows):
    # the most rain
    return max(rows, key=lambda row: row.rain)
```

```mermaid
graph TD; A-->B
```

![a chart from far away](https://example.org/chart.png)

<details><summary>More</summary>Text <kbd>Ctrl</kbd>+<kbd>C</kbd></details>
"""
HTML = """<!doctype html><title>Counter</title><style>body{font-family:sans-serif;text-align:center}
button{font-size:24px;padding:8px 24px}</style><h1>Counter</h1><form onsubmit="event.preventDefault();
document.querySelector('output').value++"><button>Count</button></form><p><output>0</output></p>
<script>document.title = 'ran'; document.body.dataset.ran = 'yes'</script>"""
SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 120"><rect x="10" y="10" width="180"
height="100" rx="16" fill="#2f6fde"/><circle cx="100" cy="60" r="34" fill="#ffd34d"/></svg>"""
RECORD = """async () => {
  const canvas = document.querySelector('canvas'), context = canvas.getContext('2d');
  const recorder = new MediaRecorder(canvas.captureStream(25), {mimeType: 'video/webm'});
  const pieces = [];
  recorder.ondataavailable = event => pieces.push(event.data);
  recorder.start();
  for (let n = 0; n < 30; n++) {
    context.fillStyle = `hsl(${n * 12} 70% 55%)`; context.fillRect(0, 0, 320, 180);
    await new Promise(done => setTimeout(done, 40));
  }
  const stopped = new Promise(done => recorder.onstop = done);
  recorder.stop();
  await stopped;
  return [...new Uint8Array(await new Blob(pieces).arrayBuffer())];
}"""


@pytest.fixture(scope="module")
def conversation(live_server):
    return live_server.conversation("previews")


def png(page) -> bytes:
    page.set_content("<body style='background:linear-gradient(45deg,#0a7,#fa3)'><h1>A chart</h1>")
    return page.screenshot(clip={"x": 0, "y": 0, "width": 480, "height": 300})


def test_text_has_colours_and_line_numbers(live_server, conversation, page, screenshot):
    live_server.upload(conversation, "weather.py", PYTHON.encode())
    open_preview(page, live_server, conversation, "weather.py")
    frame = inner_frame(page)
    lines = frame.locator(".file > span")
    assert lines.count() == PYTHON.count("\n")
    assert frame.locator(".file").inner_text().startswith('"""Monthly totals')
    assert frame.locator(".file .k, .file .kn").count() > 3
    screenshot(page, "text-light")
    page.emulate_media(color_scheme="dark")
    screenshot(page, "text-dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_markdown_is_rendered(live_server, conversation, page, screenshot, scheme):
    page.emulate_media(color_scheme=scheme)
    live_server.upload(conversation, "report.md", MARKDOWN.encode())
    open_preview(page, live_server, conversation, "report.md")
    frame = inner_frame(page)
    assert frame.locator("h1").inner_text() == "Seattle weather"
    assert frame.locator("td").count() == 6
    assert frame.locator("pre .k").count() >= 2
    assert frame.locator("img").get_attribute("src") is None
    screenshot(page, f"markdown-{scheme}")


def test_html_runs_its_own_script(live_server, conversation, page, screenshot):
    live_server.upload(conversation, "counter.html", HTML.encode())
    open_preview(page, live_server, conversation, "counter.html")
    frame = inner_frame(page)
    frame.get_by_role("button").click()
    frame.get_by_role("button").click()
    assert frame.locator("output").inner_text() == "2"
    screenshot(page, "html")


def test_svg_is_a_picture(live_server, conversation, page, screenshot):
    live_server.upload(conversation, "drawing.svg", SVG)
    open_preview(page, live_server, conversation, "drawing.svg")
    page.wait_for_function("document.images[0].complete")
    assert page.evaluate("document.images[0].naturalWidth") > 0
    screenshot(page, "svg")


def test_a_raster_picture(live_server, conversation, page, screenshot):
    live_server.upload(conversation, "chart.png", png(page))
    open_preview(page, live_server, conversation, "chart.png")
    page.wait_for_function("document.images[0].complete")
    assert page.evaluate("document.images[0].naturalWidth") == 480
    screenshot(page, "image")


def test_a_film_can_be_wound(live_server, conversation, page, screenshot):
    page.set_content("<canvas width=320 height=180></canvas>")
    recorded = page.evaluate(RECORD)
    live_server.upload(conversation, "film.webm", bytes(recorded))
    with page.expect_response(lambda answer: answer.status == 206):
        open_preview(page, live_server, conversation, "film.webm")
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    assert page.evaluate("document.querySelector('video').videoWidth") == 320
    screenshot(page, "video")


def test_the_page_keeps_its_frame_alive(live_server, conversation, page):
    live_server.upload(conversation, "alive.txt", b"x")
    page.clock.install()
    open_preview(page, live_server, conversation, "alive.txt")
    with page.expect_response(lambda answer: answer.url.endswith("/renew")) as renewed:
        page.clock.fast_forward(31_000)
    assert renewed.value.status == 204


def test_a_link_in_markdown_opens_a_tab_of_its_own(live_server, conversation, page, canary):
    text = f"[away]({canary.url}/clicked) [down](#far)\n\n# Far"
    live_server.upload(conversation, "links.md", text.encode())
    open_preview(page, live_server, conversation, "links.md")
    frame = inner_frame(page)
    frame.get_by_text("down").click()
    canary.assert_silent()
    with page.expect_popup() as popup:
        frame.get_by_text("away").click()
    assert canary.wait_for_request() == "GET /clicked HTTP/1.1"
    assert popup.value.evaluate("window.opener") is None
    assert frame.get_by_text("Far").is_visible()


def test_a_theme_can_be_asked_for(live_server, conversation, page, screenshot):
    live_server.upload(conversation, "themed.py", PYTHON.encode())
    page.emulate_media(color_scheme="light")
    open_preview(page, live_server, conversation, "themed.py", "?theme=dark&bare=1")
    assert not page.locator("header").is_visible()
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == inner_frame(page).evaluate(background) == "rgb(21, 24, 29)"
    screenshot(page, "theme-bare")


def test_sound(live_server, conversation, page, screenshot):
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000 * 2 * 3))
    live_server.upload(conversation, "beep.wav", sound.getvalue())
    open_preview(page, live_server, conversation, "beep.wav")
    page.wait_for_function("document.querySelector('audio').readyState >= 1")
    assert round(page.evaluate("document.querySelector('audio').duration")) == 3
    screenshot(page, "audio")


def test_what_has_no_preview_can_be_downloaded(live_server, conversation, page, screenshot):
    live_server.upload(conversation, "data.bin", bytes(range(256)))
    open_preview(page, live_server, conversation, "data.bin")
    assert "no preview" in page.locator(".card").inner_text()
    screenshot(page, "download")
    with page.expect_download() as download:
        page.locator(".card a").click()
    assert Path(download.value.path()).read_bytes() == bytes(range(256))
