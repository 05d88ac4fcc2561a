"""What a browser knows of a page of ours on a phone, in light and in dark."""

from __future__ import annotations

import json
import re
import subprocess

# Run in the page: tells the page around it what it found.
_PROBE = """
<script>
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [0.2126 * r, 0.7152 * g, 0.0722 * b].map((part, k) => {
    const share = [r, g, b][k] / 255, weight = [0.2126, 0.7152, 0.0722][k];
    return weight * (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  }).reduce((sum, part) => sum + part);
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const color = channels(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  addEventListener("load", () => {
    let contrast = 21, worst = "";
    for (const node of document.body.querySelectorAll("*")) {
      if (![...node.childNodes].some((part) => part.nodeType === 3 && part.data.trim())) continue;
      if (["SCRIPT", "STYLE"].includes(node.tagName)) continue;
      const one = light(channels(getComputedStyle(node).color)), two = light(background(node));
      const found = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
      if (found < contrast) [contrast, worst] = [found, node.outerHTML.slice(0, 80)];
    }
    parent.postMessage({
      contrast, worst,
      images: document.images.length,
      broken: [...document.images].filter((image) => image.naturalWidth === 0).length,
      wide: document.documentElement.scrollWidth,
      dark: matchMedia("(prefers-color-scheme: dark)").matches,
      dangling: [...document.links].filter((link) => !document.querySelector(link.hash)).length,
      text: document.body.innerText,
    }, "*");
  });
</script>
"""
# A window of less than 500 pixels cannot be had; a frame can.
_FRAME = """<!DOCTYPE html><pre id="found"></pre><iframe src="{}" width="{}" height="800"></iframe>
<script>addEventListener("message", (event) => {{
  document.getElementById("found").textContent = encodeURIComponent(JSON.stringify(event.data));
}});</script>"""


def examine(browser, page, *, width=360, dark=False):
    """Returns what a browser found in a page of the given width in pixels.

    `contrast` is the lowest of any text with what is behind it, as WCAG 2 defines it.
    """
    from urllib.parse import unquote

    probed = page.with_name(f"probed-{page.name}")
    probed.write_text(page.read_text() + _PROBE)
    frame = page.with_name(f"frame-{page.name}")
    frame.write_text(_FRAME.format(probed.name, width))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom"]
    done = subprocess.run(
        [*command, frame.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    found = re.search(r'id="found">(.*?)</pre>', done.stdout).group(1)
    return json.loads(unquote(found))


def check(browser, page):
    """Asserts what every page of ours keeps, on a phone, in light and in dark; returns both."""
    both = [examine(browser, page, dark=dark) for dark in (False, True)]
    for found, dark in zip(both, (False, True), strict=True):
        assert found["dark"] == dark
        assert found["contrast"] >= 4.5, found["worst"]  # WCAG 2, AA
        assert found["wide"] <= 360, "the page must not scroll sideways"
        assert (found["broken"], found["dangling"]) == (0, 0)
    return both
