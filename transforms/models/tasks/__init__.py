"""The tasks on local weights, one small adapter each; :mod:`transforms.models.task_table` says what each one takes."""
