"""What tests in a real Chromium share."""

import base64
import io
from typing import Any

from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect

PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}

# Text whose contrast to the ground behind it is below WCAG AA: 4.5, or 3 for large type.
LOW_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const field = node.matches("[type=text], [type=number], textarea");
    if (!(own || field) || !node.checkVisibility() || node.disabled) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(style.color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) bad.push(`${node.tagName} ${node.textContent}: ${ratio}`);
  }
  return bad;
}"""


def draw(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Steps").fill("4")
    page.get_by_role("button", name="Draw", exact=True).click()


def drawn(page: Page, count: int = 1) -> list[dict[Any, Any]]:
    """Pixels and own words of each result picture, once nothing is drawn any more."""
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_enabled()
    pictures = page.locator("img[data-result]")
    expect(pictures).to_have_count(count)
    for index in range(count):
        # Waits: an image decodes a moment after it is put there.
        expect(pictures.nth(index)).to_have_js_property("naturalWidth", 32)
    sources = pictures.evaluate_all("found => found.map(img => img.src)")
    files = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]
    return [{"pixels": file.convert("RGB").tobytes(), **file.info} for file in files]
