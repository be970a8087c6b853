"""The demo: bundled support tickets stream through a real model, and every one of them is accounted for.

``__main__`` runs it; ``tickets`` are what it streams; ``stream`` publishes them and watches what comes back;
``answers`` puts predictions in words; ``job`` is the real job in its own process; ``view`` draws, ``summary`` sums up.
"""
