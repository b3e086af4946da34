"""The audit of a volume: an independent reader of its log, its view and its blobs (docs/audit.md).

Uses the formats, the pure core and ports that read; nothing that writes a log or a view, for a shared bug
would bless itself.  `volume.audit_volume` is the way in.
"""
