"""``beam-hf-inference models``: the models file looked at before it is copied, and what it has led to."""
