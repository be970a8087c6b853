"""The short form of ``pipeline.doctor``, at every launch: what the flags name exists and is fit for the job."""

from __future__ import annotations

import itertools
import logging

from google.api_core import exceptions as api

from pipeline import clients, summary_sink
from pipeline.checks import resources, schemas
from pipeline.checks.finding import UNREACHABLE
from pipeline.command import Failed
from pipeline.flags import UsageError
from pipeline.options import Settings

_LOGGER = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Looks at everything that ``settings`` names; a missing right to look passes, with a warning.

    Raises:
        UsageError: the first thing that is missing or wrong, with the way out.
        Failed: a service cannot be reached now.
    """
    for finding in itertools.chain(resources.check(settings), schemas.check(settings)):
        if finding.ok is False and finding.cause.endswith(UNREACHABLE):
            raise Failed(str(finding))
        if finding.ok is False:
            raise UsageError(str(finding))
        if finding.ok is None:
            _LOGGER.warning("%s", finding)


def make_summary_table(settings: Settings) -> None:
    """Makes the summary table where it is missing.

    Raises:
        UsageError: it cannot be made.
    """
    if settings.summary_table:
        try:
            summary_sink.create_table(settings.summary_table)
        except api.Forbidden as error:
            # It may be there, and this account see none.
            _LOGGER.warning("--summary_table %s: %s", settings.summary_table, clients.words(error))
        except clients.API_ERRORS as error:
            raise UsageError(f"--summary_table {str(settings.summary_table)!r}: {clients.words(error)}") from None
