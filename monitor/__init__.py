"""API abuse monitor: finds distillation scraping in a model provider's request log.

::

    source -> decode -> sketch -> features -> score -> campaigns -> rules -> alerts

One package a step. ``records`` holds the type on every arrow, ``fields`` the vocabulary of the request
log, ``features.catalogue`` that of the features, ``telemetry`` every metric, ``settings`` every knob.
``pipeline`` is the spine. Importing this package imports nothing else.
"""

__version__ = "0.1.0"
