"""Computes the logits that every peer should give: the checkpoint in torch and fp32. Arguments: folder, lists, result.

Knows Hugging Face's own model class; does not know peers. It runs with sentence-transformers.
Invariant: each pair is computed by itself, so that nothing depends on padding or on neighbours.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before its libraries are imported

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

folder, lists, result = map(Path, sys.argv[1:])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = BertForSequenceClassification.from_pretrained(folder).eval()
known: dict[tuple[str, str], float] = {}
logits = []
with torch.inference_mode():
    for query, texts in json.loads(lists.read_text(encoding="utf-8")):
        for text in texts:
            if (query, text) not in known:
                encoded = tokenizer([query], [text], truncation=True, return_tensors="pt")
                known[query, text] = float(model(**encoded).logits[0, 0])
        logits.append([known[query, text] for text in texts])
result.write_text(json.dumps(logits), encoding="utf-8")
