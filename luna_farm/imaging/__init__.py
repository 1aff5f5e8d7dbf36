"""Images: the quality gate, the metadata, one encoder a format. Pixels in, bytes out; it opens no files."""
