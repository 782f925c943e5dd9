"""Per-account windows: events in, one row per account and tick out. See :mod:`monitor.features.catalogue`."""
