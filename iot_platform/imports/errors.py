"""What makes an import impossible."""


class ImportRefusedError(Exception):
    """The mapping, or the file, is not what can be imported: a person decides. Never retry by itself."""
