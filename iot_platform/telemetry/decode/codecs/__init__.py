"""Codecs: payload bytes of every format to the documents or points that the rest of the decoder takes."""
