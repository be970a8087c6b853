"""Several models in one step: which there are, which answers what, and how they change while the job runs.

One file says it all (docs/rollout.md). :class:`~transforms.models.fleet.handler.ModelsHandler` is the way in; imports
no torch before a model with weights is looked at.
"""
