"""What can be looked at before a launch; ``pipeline.preflight`` runs the first of it, ``pipeline.doctor`` all."""
