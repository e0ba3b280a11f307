"""The golden pairs: what every bundle is asked before it may serve, ordinary and nasty.

Knows texts only, all written for this purpose; does not know a model.
Invariant: 64 pairs, always the same ones in the same order.
"""

from bundle.text import Product

_HOSE = Product(
    title="Expandable garden hose 15 m with spray nozzle",
    brand="Greenleaf",
    color="green",
    category="Garden > Watering",
    bullets="Kink-free latex core\nBrass connectors\nTen spray patterns",
    description="A light hose that stretches to 15 metres under pressure and shrinks back for storage.",
)
_REEL = Product(title="Wall-mounted hose reel, steel, holds 30 m", brand="Ironbark", color="black")
_CASE = Product(
    title="Clear case for 6.1 inch phone, shock absorbing corners", brand="Nordhem", color="clear"
)
_CHARGER = Product(title="USB-C wall charger 30 W, foldable plug", brand="Voltaro", color="white")
_BOOTS = Product(title="Women's waterproof hiking boots, mid height", brand="Cairn & Co", color="brown")
_SANDALS = Product(title="Men's trekking sandals with toe cap", brand="Cairn & Co", color="grey")
_LAPTOP = Product(
    title="14 inch laptop, 16 GB memory, 512 GB SSD, matte display",
    brand="Arvello",
    category="Computers > Laptops",
    description="A quiet everyday computer with a long battery life.",
)
_TONER = Product(title="Black toner cartridge for Arvello L200 printers, 3,000 pages", brand="Inkwell")

_CATALOGUE = (_HOSE, _REEL, _CASE, _CHARGER, _BOOTS, _SANDALS, _LAPTOP, _TONER)
_QUERIES = (
    "garden hose 15m",
    "phone case clear",
    "hiking boots women waterproof",
    "laptop 16gb",
    "printer toner",
)

_NASTY_QUERIES = (
    "",
    " ",
    "\x00",
    "a" * 10_000,
    "🥾🥾 boots",
    "防水ハイキングブーツ",
    "حذاء المشي",
    "\u202eesoh nedrag\u202c",
    "hose\x00nozzle",
    "[CLS] [SEP] [PAD]",
    "\ud800 hose",
    "½″ hose—“best” ﬁtting",
)
_NASTY_PRODUCTS = (
    Product(),
    Product(title=""),
    Product(title="hose " * 2_000),
    Product(title="🎁🎁🎁 garden hose 🎁"),
    Product(title="園芸用ホース 15メートル 緑", brand="緑葉"),
    Product(title="خرطوم حديقة \u0661\u0665 متر", color="أخضر"),
    Product(title="garden\x00hose\x00"),
    Product(title="\u200b\u200d\ufeff"),
    Product(title="[SEP] garden hose [CLS]"),
    Product(text="Garden hose, green, 15 m, one plain text and no fields"),
    Product(title="e\u0301" * 300, description="ṱ̺̺̕o͞ ͏ hose"),
    Product(brand="Greenleaf", color="green"),
)


def golden_pairs() -> list[tuple[str, Product]]:
    """Forty ordinary pairs, then every nasty query with a hose and every nasty product with a plain query."""
    ordinary = [(query, product) for query in _QUERIES for product in _CATALOGUE]
    nasty = [(query, _HOSE) for query in _NASTY_QUERIES]
    nasty += [("garden hose 15m", product) for product in _NASTY_PRODUCTS]
    return ordinary + nasty
