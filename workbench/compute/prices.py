"""What a node costs: as the user says, or as Azure's public price list says today.

The list: https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
"""

import math
from dataclasses import dataclass

RETAIL_PRICES = "https://prices.azure.com/api/retail/prices"
_SECONDS_TO_WAIT = 10


@dataclass(frozen=True)
class Price:
    """What a node costs.

    Attributes:
        dollars: US dollars an hour.
        source: where the price is from.
    """

    dollars: float
    source: str


def given_price(dollars: float) -> Price:
    """Return the price that the user gave.

    Raises:
        ValueError: it is not a valid price.
    """
    number = isinstance(dollars, int | float) and not isinstance(dollars, bool)
    if not number or not 0 <= dollars < math.inf:
        raise ValueError(
            f"price_per_hour={dollars!r}: give US dollars for a node and hour, or None"
        )
    return Price(float(dollars), f"price_per_hour={dollars:g} US dollars a node")


def retail_price(vm_size: str, region: str, *, low_priority: bool) -> Price | None:
    """Look a price up in Azure's public list; None where it has none, or cannot be reached."""
    import requests

    where = {
        "serviceName": "Virtual Machines",
        "priceType": "Consumption",
        "armSkuName": vm_size,
        "armRegionName": region,
    }
    asked = " and ".join(f"{name} eq '{value}'" for name, value in where.items())
    try:
        answer = requests.get(RETAIL_PRICES, params={"$filter": asked}, timeout=_SECONDS_TO_WAIT)
        answer.raise_for_status()
        prices = [
            float(item["retailPrice"])
            for item in answer.json()["Items"]
            if item["unitOfMeasure"] == "1 Hour"
            and "Windows" not in item["productName"]
            and "Spot" not in item["meterName"]
            and ("Low Priority" in item["meterName"]) == low_priority
        ]
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None
    if not prices:
        return None
    kind = "low priority" if low_priority else "dedicated"
    return Price(
        min(prices),
        f"{min(prices):g} US dollars an hour and node ({kind}, {region}), from Azure's public "
        "price list; give price_per_hour for your own",
    )
