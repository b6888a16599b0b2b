#!/usr/bin/env python3
"""Opens a report in a headless Chromium and looks for what a reader would trip over.

At the width of a desktop and of a phone, in light and in dark:
  - no two texts of a drawing overlap, and none reaches out of its drawing;
  - no element is wider than the window;
  - every drawing has a title, and its axes are labelled;
  - text differs enough from its ground (contrast of at least 4.5:1, WCAG 2.1 AA).
Nothing may be loaded, and no script may be in the page.

usage: check_page.py PAGE.html [--screenshots DIRECTORY]
Exits with 77 when there is no Chromium, 1 when something was found.
"""

import argparse
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

WIDTHS = {"desktop": 1280, "phone": 360}

SCRIPT = r"""
const found = [];
const shown = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
const luminance = c => {
  const v = c.match(/[\d.]+/g).slice(0, 3).map(x => { x /= 255;
    return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
const contrast = (a, b) => { const x = luminance(a), y = luminance(b);
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
const wide = document.documentElement.clientWidth;
for (const e of document.body.querySelectorAll('*')) {
  const r = e.getBoundingClientRect();
  if (shown(e) && r.right > wide + 0.5) found.push(`wider than the window (${r.right} > ${wide}): ` +
    e.tagName + ' ' + (e.textContent || '').trim().slice(0, 40));
}
let drawings = 0;
for (const svg of document.querySelectorAll('svg')) {
  if (!shown(svg)) continue;
  ++drawings;
  const name = svg.getAttribute('aria-label');
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].filter(shown);
  const boxes = texts.map(t => t.getBoundingClientRect());
  boxes.forEach((b, i) => {
    const text = texts[i].textContent;
    if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 ||
        b.bottom > frame.bottom + 1) found.push(`${name}: "${text}" reaches out of the drawing`);
    for (let k = i + 1; k < boxes.length; ++k) {
      const c = boxes[k];
      // Line boxes are higher than the letters in them: two pixels of them may touch.
      const w = Math.min(b.right, c.right) - Math.max(b.left, c.left);
      const h = Math.min(b.bottom, c.bottom) - Math.max(b.top, c.top);
      if (w > 0.5 && h > 2) found.push(`${name}: "${text}" overlaps "${texts[k].textContent}"`);
    }
  });
  if (!name) found.push('a drawing without a label');
  const figure = svg.closest('figure');
  if (!figure || !figure.querySelector('h3') || !figure.querySelector('h3').textContent)
    found.push(`${name}: no title`);
  if (texts.length < 3) found.push(`${name}: hardly any text: are the axes labelled?`);
  for (const t of texts) {
    if (t.classList.contains('onfill')) continue;
    const c = contrast(getComputedStyle(t).fill, ground(svg));
    if (c < 4.5) found.push(`${name}: "${t.textContent}" has a contrast of ${c.toFixed(2)}`);
  }
}
for (const e of document.querySelectorAll('p,dt,dd,td,th,li,h1,h2,h3,code,small,summary,footer')) {
  if (!shown(e) || !e.textContent.trim()) continue;
  const c = contrast(getComputedStyle(e).color, ground(e));
  if (c < 4.5) found.push(`contrast ${c.toFixed(2)}: ${e.tagName} ${e.textContent.slice(0, 30)}`);
}
document.documentElement.setAttribute('data-found', JSON.stringify({found, drawings, wide,
  height: Math.ceil(document.documentElement.scrollHeight)}));
"""


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    return None


def run(browser, work, dark, arguments):
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={work}/profile",
               f"--blink-settings=preferredColorScheme={0 if dark else 1}",
               "--allow-file-access-from-files", "--virtual-time-budget=2000"] + arguments
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def framed(page, width, height):
    """A page that shows another one in a window of exactly this width: browsers refuse narrow
    windows, frames they do not."""
    return (f"<!DOCTYPE html><body style='margin:0'><iframe id='f' src='{page.name}' "
            f"style='border:0;display:block' width='{width}' height='{height}'></iframe>")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    args = parser.parse_args()
    text = args.page.read_text(encoding="utf-8")
    problems = []
    if re.search(r"<script|<link|<img|<iframe|https?://|@import|url\(", text):
        problems.append("the page loads something or holds a script")
    browser = chromium()
    if browser is None:
        print("SKIP: no chromium (Debian package chromium) to open the report with")
        return 77 if not problems else 1

    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "page.html").write_text(text, encoding="utf-8")
        # The page forbids scripts; its copy for the measurement has to allow this one.
        probe = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", text)
        probe = probe.replace("</body>", f"<script>{SCRIPT}</script></body>")
        (work / "probe.html").write_text(probe, encoding="utf-8")
        for device, width in WIDTHS.items():
            for dark in (False, True):
                name = f"{device}, {'dark' if dark else 'light'}"
                outer = work / "outer.html"
                outer.write_text(framed(work / "probe.html", width, 900) + """<script>
onload = () => document.documentElement.setAttribute('data-found',
  document.getElementById('f').contentDocument.documentElement.getAttribute('data-found'));
</script>""", encoding="utf-8")
                out = run(browser, work, dark, ["--window-size=1400,900", "--dump-dom",
                                                f"file://{outer}"])
                match = re.search(r'data-found="([^"]*)"', out.stdout)
                if not match:
                    print(out.stderr[-2000:])
                    problems.append(f"{name}: the page could not be measured")
                    continue
                result = json.loads(html.unescape(match.group(1)))
                if result["wide"] != width:
                    problems.append(f"{name}: measured at a width of {result['wide']}")
                print(f"{name}: {result['drawings']} drawings, {result['height']} pixels high, "
                      f"{len(result['found'])} problems")
                problems += [f"{name}: {p}" for p in result["found"]]
                if args.screenshots:
                    args.screenshots.mkdir(parents=True, exist_ok=True)
                    outer.write_text(framed(work / "page.html", width, result["height"]),
                                     encoding="utf-8")
                    shot = args.screenshots / f"{device}-{'dark' if dark else 'light'}.png"
                    run(browser, work, dark, [f"--window-size={max(width, 500)},{result['height']}",
                                              f"--screenshot={shot.resolve()}", f"file://{outer}"])
    for problem in problems[:60]:
        print("FAIL:", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
