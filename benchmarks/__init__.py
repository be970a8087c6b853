"""What the pipeline costs, beside the raw model, the stock pipeline and a hand-written subscriber."""
