"""The formats of lists and manifests: text in, lines out; results in, text out.

`reading.read` takes a list, `writing.write` makes a manifest. Both stream, and neither opens a
file, a connection or a database.
"""
