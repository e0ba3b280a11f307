"""An engine of our own for encoders of the BERT family in int8, on processors with AVX-512 VNNI."""
