"""Let the pages of `dvc plots` work offline: a template with Vega in it, and the setting of this clone that names it.

DVC's own template loads Vega from the web. Run this as `make plots`.
"""

from pathlib import Path

import vl_convert
from dvc.config import Config

from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_whole

LOCAL = Path(".dvc/config.local")
PAGE = Path(".dvc/plots.html")  # git ignores it; a setting of DVC is relative to .dvc
VEGA_LITE = "5.21"  # DVC writes its plots for 5
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
    """Write the page, and name it where no other is named: a template of the user's own stays."""
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    write_whole(PAGE, TEMPLATE.replace("VEGA", vega).encode())
    before = LOCAL.read_bytes() if LOCAL.exists() else b""
    try:
        config = Config(".dvc", validate=False)
        if "html_template" in config.get("plots", {}):
            return
        with config.edit("local") as settings:
            settings.setdefault("plots", {})["html_template"] = PAGE.name
    except Exception as error:  # of ConfigObj too: it empties the file when a value is not ASCII
        if before:
            write_whole(LOCAL, before)
        raise UserError(
            f"{LOCAL}: DVC cannot read or write it ({error}); add html_template = {PAGE.name} to [plots]"
        ) from None


if __name__ == "__main__":
    run(main)
