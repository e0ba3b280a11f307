"""The small model that learns from the teacher's scores, and the meaning of its logits."""
