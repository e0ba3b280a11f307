"""Recipe sections of the finishing stages: calibrate, export, quantize, evaluate, bundle.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CalibrateRecipe(_Section):
    """Fit of the class probabilities on judged training pairs."""

    datasets: tuple[str, ...] = Field(
        (), description="data sets to fit on; empty takes those with ESCI labels, else all"
    )
    folds: int = Field(5, ge=2, le=50, description="query-wise folds of the out-of-fold calibration error")


class ExportRecipe(_Section):
    """fp32 ONNX graph of the student."""

    graph: Literal["flat", "plain"] = Field(
        "flat", description="flat is the same function computed with less work"
    )
    opset: int = Field(20, ge=20, le=23, description="20 is the first with Gelu")
    parity: float = Field(1e-4, gt=0, description="largest allowed |logit| difference to torch")


class QuantizeRecipe(_Section):
    """Static int8 graph, its calibration rows and the limits it has to keep."""

    calibration_pairs: int = Field(1024, ge=8, description="training pairs whose activations set the scales")
    percentile: float = Field(
        100.0, gt=90, le=100, description="share of activations a scale covers, per cent"
    )
    reduce_range: bool = Field(default=True, description="7-bit weights: exact on CPUs without VNNI too")
    min_spearman: float = Field(0.98, ge=-1, le=1, description="of int8 and fp32 logits, over held-out pairs")
    min_pair_order: float = Field(
        0.97, ge=0, le=1, description="share of pairs over 0.1 standard deviations kept"
    )
    max_rms: float = Field(0.15, gt=0, description="rms logit difference over the logits' standard deviation")
    max_ndcg_drop: float = Field(
        0.01, ge=0, description="mean NDCG@10 that int8 may lose on validation lists"
    )


class EvaluateRecipe(_Section):
    """Held-out lists, the baselines beside the student, and the bootstrap."""

    splits: tuple[Literal["validation", "test"], ...] = ("validation", "test")
    min_pairs: int = Field(5, ge=2, description="judged products a list needs")
    resamples: int = Field(2000, ge=100, description="bootstrap draws of lists")
    biencoder: str = Field("", description="sentence encoder for the zero-shot baseline; empty leaves it out")


class BundleRecipe(_Section):
    """What the finished bundle holds and says."""

    precisions: tuple[Literal["int8", "fp32"], ...] = ("int8",)
    licences: tuple[str, ...] = ()
    data: tuple[str, ...] = Field((), description="the card's lines on training data and attribution")
    limits: tuple[str, ...] = Field((), description="the card's lines on limits that come from the data")
    golden_tolerance: float = Field(0.02, gt=0, lt=1, description="largest |score| difference on another CPU")
