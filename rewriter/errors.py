"""What can go wrong, as one tree.

OnnxpressError
├── InputError           the caller can mend it; the command line exits with status 2
│   ├── ModelError       a model that cannot be read, understood or written
│   ├── ConfigError      an option, a recipe, a name that means nothing
│   ├── FeedError        samples that do not fit the model
│   ├── ProviderError    an execution provider that is not there, or was silently replaced
│   └── EngineError      workers that cannot be reached, or were lost
└── LimitNotMet          a stated limit does not hold; the command line exits with status 3
"""

from __future__ import annotations


class OnnxpressError(Exception):
    """Base of all errors raised on purpose; the text is one line that says what to do next."""


class InputError(OnnxpressError):
    """The caller gave something that cannot be used."""


class ModelError(InputError):
    """A model that cannot be read, understood or written."""


class ConfigError(InputError):
    """An option or recipe that means nothing; names the field and the value."""


class FeedError(InputError):
    """Samples that do not fit the model."""


class ProviderError(InputError):
    """An execution provider that is missing, or that ONNX Runtime replaced by another."""


class EngineError(InputError):
    """Workers that cannot be reached, were lost, or lack what they need."""


class LimitNotMet(OnnxpressError):
    """A limit the caller stated does not hold."""
