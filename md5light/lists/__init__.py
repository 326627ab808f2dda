"""The formats of lists and manifests.

`reading.read` parses a list, `writing.write` writes a manifest. Both stream, and neither opens a
file, a connection or a database.
"""
