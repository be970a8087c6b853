"""An embedded BigQuery: the REST subset that Google's clients, Beam and ``bq`` use, on DuckDB.

``python -m pipeline.emulators.bigquery`` runs it; the unmodified ``google-cloud-bigquery`` client finds it through
``BIGQUERY_EMULATOR_HOST`` and anonymous credentials, the command line through ``bq --api``. It has datasets, tables,
views, streaming inserts, loads of small JSON and CSV files, and GoogleSQL queries, DML and DDL; no copy or extract
jobs, no scripts, no routines, no Storage API, no access control. What it is asked for and does not do is a 501
(``unsupported.py``); partitioning and clustering alone are kept and shown, and change nothing.

``bq`` wants an account or, in its place, any access token: ``echo none > token`` and
``CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=token bq --api http://127.0.0.1:9050 --project_id=my-project ls``.
"""
