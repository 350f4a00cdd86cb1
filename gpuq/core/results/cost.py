"""What GPU hours would have cost elsewhere, to the cent."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from gpuq.core.units import quoted

HIGHEST = Decimal(10**6)
CENT = Decimal("0.01")
_MICROSECONDS = 6


def parse_price(text: str) -> Decimal:
    """The price of a GPU for an hour, as "1.006"; ValueError where it is none. In what currency is
    for its reader to know."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{quoted(text)} is no price: write it like 1.006") from None
    if not price.is_finite() or not 0 <= price <= HIGHEST:
        raise ValueError(f"{quoted(text)} is no price: from 0 to {HIGHEST} for a GPU and hour")
    return price


def cost(gpu_s: float, price: Decimal) -> Decimal:
    """Of so many GPU-seconds at a price for the hour; half a cent is rounded up. Time is taken to the
    microsecond, or what a float cannot hold would decide about that half."""
    seconds = Decimal(str(round(gpu_s, _MICROSECONDS)))
    return (seconds * price / 3600).quantize(CENT, ROUND_HALF_UP)
