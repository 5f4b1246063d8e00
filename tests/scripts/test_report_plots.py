"""The template of DVC's own plots page leaves the settings of a clone as they are."""

from pathlib import Path

import pytest

from ddpm.pipeline.console import UserError
from scripts import plots_page


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots_page.vl_convert, "javascript_bundle", lambda *_, **__: "// Vega")
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n")


def test_template_has_what_dvc_fills_in_and_no_place_for_its_scripts() -> None:
    plots_page.main()
    template = plots_page.PAGE.read_text()
    assert [template.count(name) for name in ("{plot_divs}", "{refresh_tag}", "{scripts}", "// Vega")] == [1, 1, 0, 1]
    assert Path(".dvc/config.local").read_text() == "[plots]\n    html_template = plots.html\n"


def test_template_of_the_users_own_stays() -> None:
    own = "[plots]\n    html_template = mine.html\n"
    Path(".dvc/config.local").write_text(own)
    plots_page.main()
    assert Path(".dvc/config.local").read_text() == own


def test_settings_that_dvc_cannot_write_stay() -> None:
    secret = "['remote \"storage\"']\n    url = /x\n    password = \u00e9\n"
    Path(".dvc/config.local").write_text(secret)
    with pytest.raises(
        UserError, match=r"^.dvc/config.local: DVC cannot read or write it .*; add html_template = plots.html"
    ):
        plots_page.main()
    assert Path(".dvc/config.local").read_text() == secret, "DVC would have emptied it"
