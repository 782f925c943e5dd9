"""Where requests come from: a Kafka topic or files, and what is sent back to Kafka.

The only package that imports ``kafka``. It hands on bytes with their coordinates
(:class:`monitor.records.RawBatch`) and knows nothing of what is in them, except the one field by which
records are spread over partitions.
"""
