"""Asks a service queries that a person typed, each with one right product among three that are nearly right.

Knows what a shopper would expect; does not know how a score is made.
Invariant: the right product is sent last, so that an order which nobody made is counted as wrong.

    python benchmarks/service/by_hand.py                      a service of this checkout on a free port
    python benchmarks/service/by_hand.py --url http://...     one that runs already
"""

import argparse
import json
import sys
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.target import describe_commit, running_service

TIMEOUT_S: Final = 10.0
# The first product is the right one; the others share its words, its kind or its use.
QUERIES: Final = {
    "4k monitor 27 inch": (
        "27 inch 4K UHD monitor, IPS",
        "27 inch Full HD monitor",
        "Monitor arm for 27 inch screens",
        "HDMI cable 4K 2 m",
    ),
    "coffee maker with grinder": (
        "Automatic drip coffee maker with built-in burr grinder",
        "Electric burr coffee grinder",
        "French press coffee maker",
        "Paper coffee filters, 100 pieces",
    ),
    "cordless drill": (
        "18 V cordless drill with two batteries",
        "Corded hammer drill 800 W",
        "Drill bit set, 100 pieces",
        "Battery charger for 18 V cordless drill",
    ),
    "dog food without chicken": (
        "Grain-free dog food with salmon, chicken free",
        "Dog food with chicken and rice",
        "Cat food with salmon",
        "Dog bowl, stainless steel",
    ),
    "gaming chair": (
        "Racing style gaming chair with lumbar support",
        "Ergonomic mesh office chair",
        "Office chair mat for carpet",
        "Gaming desk with LED lights",
    ),
    "iphone 11 case": (
        "Silicone case for iPhone 11, black",
        "Clear case for iPhone 12 Pro",
        "Screen protector for iPhone 11",
        "Apple iPhone 11 64 GB, white",
    ),
    "laptop": (
        "14 inch laptop, Core i5, 8 GB RAM",
        "Laptop backpack 15.6 inch, water resistant",
        "Adjustable aluminium laptop stand",
        "USB-C laptop charger 65 W",
    ),
    "nintendo switch": (
        "Nintendo Switch console with neon Joy-Con",
        "Mario Kart 8 Deluxe for Nintendo Switch",
        "Carrying case for Nintendo Switch",
        "PlayStation 4 Slim 1 TB console",
    ),
    "red dress": (
        "Red summer dress with sleeves",
        "Blue summer dress",
        "Red women's blouse",
        "Dress shoes, red",
    ),
    "running shoes women": (
        "Women's running shoes, lightweight mesh",
        "Men's running shoes, cushioned",
        "Women's running shorts",
        "Shoe laces for running shoes",
    ),
    "wireless mouse": (
        "Wireless mouse with USB receiver",
        "Wired optical mouse",
        "Mouse pad, large",
        "Wireless keyboard",
    ),
    "yoga mat thick": (
        "Extra thick yoga mat 15 mm",
        "Yoga mat 3 mm, thin and light",
        "Yoga block, cork",
        "Yoga mat bag with strap",
    ),
}


def ranked(url: str, query: str, products: list[str]) -> list[tuple[float, str]]:
    """Return score and text of the products, best first."""
    body = json.dumps({"query": query, "documents": products}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/rerank", body, headers)  # noqa: S310  whoever runs it names the service
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  as above
        results = json.load(answer)["results"]
    return [(result["relevance_score"], products[result["index"]]) for result in results]


def main() -> None:
    """Print every ranked list, then one JSON document of how many have the right product first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a service that runs already; default: one of this checkout")
    args = parser.parse_args()
    right = 0
    with nullcontext(args.url) if args.url else running_service() as url:
        for query, (wanted, *others) in QUERIES.items():
            found = ranked(url, query, [*others, wanted])
            right += found[0][1] == wanted
            print("|", query, "|", "; ".join(f"{score:.3f} {product}" for score, product in found), "|")
    print(json.dumps({"queries": len(QUERIES), "right": right, "commit": describe_commit()}))


if __name__ == "__main__":
    main()
