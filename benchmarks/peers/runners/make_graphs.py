"""Makes the graphs that peers serve out of a checkpoint folder, by the peers' own exporters. Arguments: fp32, int8, pairs.

Knows sentence-transformers, OpenVINO and ONNX Runtime's quantiser; does not know speed. It runs with sentence-transformers.
Invariant: the same checkpoint gives the same graphs; nothing but what these libraries document is done to them.

- fp32/onnx/model.onnx and fp32/openvino/openvino_model.xml: exported by Optimum, as sentence-transformers does it;
- int8/model.onnx, fp32/onnx/model_int8.onnx: `quantize_dynamic` of ONNX Runtime, weights s8, all else as it comes;
- fp32/openvino/openvino_model_int8.xml: static int8 by NNCF for transformers, calibrated on the pairs.
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before its libraries are imported

import nncf
import openvino
from onnxruntime.quantization import QuantType, quantize_dynamic
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

fp32, int8 = Path(sys.argv[1]), Path(sys.argv[2])
pairs = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
for backend in ("onnx", "openvino"):
    CrossEncoder(str(fp32), backend=backend, device="cpu", model_kwargs={"export": True}).save_pretrained(
        str(fp32)
    )
graph = fp32 / "onnx" / "model.onnx"
int8.mkdir(exist_ok=True)
quantize_dynamic(graph, int8 / "model.onnx", weight_type=QuantType.QInt8)
shutil.copy(fp32 / "config.json", int8 / "config.json")
shutil.copy(int8 / "model.onnx", graph.with_name("model_int8.onnx"))

tokenizer = AutoTokenizer.from_pretrained(fp32)
samples = [dict(tokenizer([query], [text], truncation=True, return_tensors="np")) for query, text in pairs]
plain = openvino.Core().read_model(fp32 / "openvino" / "openvino_model.xml")
static = nncf.quantize(
    plain, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
)
openvino.save_model(static, fp32 / "openvino" / "openvino_model_int8.xml", compress_to_fp16=False)
