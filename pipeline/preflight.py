"""The short form of ``pipeline.doctor``, at every launch: what the flags name exists and is fit for the job."""

from __future__ import annotations

import itertools
import logging

from pipeline.checks import resources, schemas
from pipeline.flags import UsageError
from pipeline.options import Settings

_LOGGER = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Looks at everything that ``settings`` names; a missing right to look passes, with a warning.

    Raises:
        UsageError: the first thing that is missing or wrong, with the way out.
    """
    for finding in itertools.chain(resources.check(settings), schemas.check(settings)):
        if finding.ok is False:
            raise UsageError(str(finding))
        if finding.ok is None:
            _LOGGER.warning("%s", finding)
