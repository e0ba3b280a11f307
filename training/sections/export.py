"""The sections of the stages in training.export.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.sections.section import Section


class ExportRecipe(Section):
    """ONNX graphs of the student: fp32, and fp16 for GPUs where it is asked for."""

    exporter: Literal["torch", "optimum"] = Field(
        "torch", description="optimum runs in an environment of its own, and traces the plain graph"
    )
    graph: Literal["flat", "plain"] = Field(
        "flat", description="flat is the same function computed with less work"
    )
    opset: int = Field(20, ge=20, le=23, description="20 is the first with Gelu")
    fused_attention: bool = Field(
        default=True,
        description="attention of the flat graph as one operator, of opset 23: faster on CPUs; not with fp16",
    )
    parity: float = Field(1e-4, gt=0, description="largest allowed |logit| difference to torch")
    fp16: bool = Field(default=False, description="also make the half-precision graph that GPUs serve")
    fp16_parity: float = Field(
        0.02, gt=0, description="largest allowed |logit| difference of the fp16 graph to the fp32 one"
    )


class QuantizeRecipe(Section):
    """Static int8 graph, its calibration rows and the limits it has to keep on the validation lists."""

    calibration_pairs: int = Field(1024, ge=8, description="training pairs whose activations set the scales")
    smooth: float = Field(
        0.9, ge=0, le=1, description="share of the rounding difficulty moved from activations to weights"
    )
    reduce_range: bool = Field(
        default=True, description="weights that no 16-bit sum overflows with: exact on CPUs without VNNI too"
    )
    min_spearman: float = Field(0.98, ge=-1, le=1, description="of int8 and fp32 logits, over held-out pairs")
    min_list_spearman: float = Field(0.99, ge=-1, le=1, description="the same in each list, mean over lists")
    min_pair_order: float = Field(
        0.97, ge=0, le=1, description="share of pairs over 0.1 standard deviations kept"
    )
    max_rms: float = Field(0.15, gt=0, description="rms logit difference over the logits' standard deviation")
    max_ndcg_drop: float = Field(0.005, ge=0, description="mean NDCG@10 that int8 may lose over all lists")
    max_dataset_ndcg_drop: float = Field(
        0.02, ge=0, description="the same in any one data set, whose lists are fewer and so noisier"
    )
    max_ece_rise: float = Field(
        0.01, ge=0, description="rise of the expected calibration error of the fitted class probabilities"
    )
