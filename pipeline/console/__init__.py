"""The console: a page on this machine that shows a job at work, from its topics, its audit table and Beam's metrics.

``python -m pipeline.console`` serves it. ``settings`` says what it watches, ``watch`` pulls the topics, ``book`` keeps
what they said, ``flow`` turns it into figures and ``show`` into JSON, ``actions`` publishes and replays, ``audit``
queries the table, ``guard`` lets nobody else in, ``app`` is the web application, and ``static/`` the page itself.
"""
