"""Money to the cent."""

from decimal import Decimal

import pytest

from gpuq.core.results.cost import cost, parse_price


@pytest.mark.parametrize(
    ("gpu_s", "price", "told"),
    [
        (3600.0, "1.006", "1.01"),
        (5 * 3600.0, "1.006", "5.03"),
        (1800.0, "1.01", "0.51"),  # half a cent
        (1799.9999, "1.01", "0.50"),
        (1e9 * 3600, "1.006", "1006000000.00"),
        (0.1 + 0.2, "36000", "3.00"),  # which is no more than 0.3 s
        (0.0, "1.006", "0.00"),
        (1e6, "0", "0.00"),
    ],
)
def test_hours_cost_what_a_hand_would_reckon(gpu_s: float, price: str, told: str) -> None:
    assert str(cost(gpu_s, parse_price(price))) == told


def test_a_price_is_read_as_it_is_written() -> None:
    assert parse_price("1.006") == Decimal("1.006")


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1,006", "$2", "1e9"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no price"):
        parse_price(text)
