"""Read what shoppers clicked on, as soft judgements: clicks over the clicks that a place in the list earns anyway.

Knows tables of query, product, impressions, clicks and position; does not know models.
Invariant: a gain lies in [0, 1], is 0.5 where clicks are just what the position earns, and nears that with few impressions.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.formats import shown
from training.data.grades import number
from training.data.judgments import column_words
from training.data.lists import JudgedList, lists_of
from training.data.tables import Line, read_lines
from training.errors import DataError
