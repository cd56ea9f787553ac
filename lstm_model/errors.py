"""The error tree. Every message says what was wrong, what was found and what to do.

The root is a `ValueError` because freqtrade turns those into one log line; any other
exception raised inside a strategy callback is logged with its traceback.
"""


class LstmModelError(ValueError):
    """Root of every error this package raises on purpose."""


class ConfigError(LstmModelError):
    """The configuration or the installation is wrong; raised before anything starts."""


class MissingPackageError(ConfigError, ImportError):
    """A package is not installed. As an `ImportError` freqtrade reports it in one line."""


class DataError(LstmModelError):
    """Candles or trades from the exchange, the data directory or the caller are unusable."""


class StoreError(LstmModelError):
    """Something on disk is missing, corrupt, foreign or not writable."""


class TrainingError(LstmModelError):
    """The training child failed, ran out of time or was stopped."""
