import pytest

from ddpm.compute.environment import number
from ddpm.pipeline.console import UserError


@pytest.mark.parametrize(("given", "found"), [("", 7), ("1", 1), ("256", 256), (" 12 ", 12)])
def test_a_whole_number(monkeypatch: pytest.MonkeyPatch, given: str, found: int) -> None:
    monkeypatch.setenv("SOME", given)
    assert number("SOME", 7, 1, 256, "things") == found
    assert isinstance(number("SOME", 7, 1, 256, "things"), int)


@pytest.mark.parametrize("given", ["0", "257", "100000", "1.5", "1e2", "two", "-1", "nan", "9" * 5000])
def test_what_is_out_of_range_is_one_short_line(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SOME", given)
    with pytest.raises(UserError) as caught:
        number("SOME", 7, 1, 256, "things")
    assert str(caught.value) == f"SOME={given[:40]}: give a number of things, 1 to 256"


def test_a_number_with_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME", raising=False)
    assert number("SOME", 30.0, 0.0, 1e6, "seconds") == 30
    monkeypatch.setenv("SOME", "0.2")
    assert number("SOME", 30.0, 0.0, 1e6, "seconds") == 0.2
