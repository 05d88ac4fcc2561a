"""A page in a browser."""

import os
import subprocess

# Reports what only a browser knows, then is read back by `--dump-dom`.
PROBE = """
<script>
  addEventListener("load", () => {
    const broken = [...document.images].filter((image) => image.naturalWidth === 0).length;
    const width = document.documentElement.scrollWidth;
    document.title = `images ${document.images.length} broken ${broken} wide ${width}`;
  });
</script>
"""


def look(browser, page, width=1000):
    """Returns the document after it was loaded by the browser."""
    profile = page.parent / "profile"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},900"]
    command += ["--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env={**os.environ}
    ).stdout
