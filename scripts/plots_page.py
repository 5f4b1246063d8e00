"""Write an HTML template that contains Vega, so that the pages of `dvc plots` work offline; `make plots` uses it.

DVC's own template loads Vega from the web.
"""

from pathlib import Path

import vl_convert

from ddpm.pipeline.console import run
from ddpm.pipeline.files import write_whole

PAGE = Path("build/plots.html")
VEGA_LITE = "5.21"  # DVC's plots use version 5
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Plots</title>
<style>body { font-family: system-ui, sans-serif; margin: 1rem; } table { border-spacing: 15px; }</style>
<script>VEGA</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Write the template."""
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    write_whole(PAGE, TEMPLATE.replace("VEGA", vega).encode())
    print(f"{PAGE}: use it by `dvc plots show --html-template {PAGE}` or `dvc plots diff`")


if __name__ == "__main__":
    run(main)
