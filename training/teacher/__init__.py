"""The slow models whose judgement the student learns: asked, fine-tuned, blended."""
