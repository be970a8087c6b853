"""What the pipeline costs, measured side by side with the raw model, the stock pipeline and a hand-written subscriber."""
