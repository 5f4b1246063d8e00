"""Write an HTML template that contains Vega, so that the pages of `dvc plots` work offline; `make plots` uses it.

DVC's own template loads Vega from the web. DVC inserts names of branches as they are, even into its scripts: so here
what it inserts is inert, and our script alone may run, which reads the plots' specifications from it.
"""

import base64
import hashlib
from pathlib import Path

import vl_convert

from exact_stages.console import run
from exact_stages.files import write_whole

PAGE = Path("build/plots.html")
VEGA_LITE = "5.21"  # DVC's plots use version 5
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="script-src 'unsafe-eval' 'sha256-HASH'">
{refresh_tag}
<title>Plots</title>
<style>body { font-family: system-ui, sans-serif; margin: 1rem; } table { border-spacing: 15px; }
img { max-width: 44vw; }</style>
<script>SCRIPT</script>
</head>
<body>
<template>
{plot_divs}
</template>
</body>
</html>
"""
SCRIPT = """
addEventListener("DOMContentLoaded", () => {
  const plots = document.querySelector("template").content, scripts = [...plots.querySelectorAll("script")];
  scripts.forEach((script) => script.remove());
  document.body.append(plots);
  scripts.forEach(async (script) => {
    const [, spec, id] = script.text.match(/var spec = (.*);\\s*vegaEmbed\\('(.*)', spec/) ?? [];
    if (spec) vegaEmbed(id, JSON.parse(spec));
  });
});
"""


def main() -> None:
    """Write the template."""
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    script = vega + SCRIPT
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_whole(PAGE, TEMPLATE.replace("HASH", digest).replace("SCRIPT", script).encode())
    print(f"{PAGE}: use it by `dvc plots show --html-template {PAGE}` or `dvc plots diff`")


if __name__ == "__main__":
    run(main)
