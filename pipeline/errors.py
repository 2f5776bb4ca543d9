"""What can go wrong in the model.

PipelineError
├── ConfigError          a setting, size or preset that cannot be
├── CheckpointError      weights that are missing, damaged or do not fit
├── PromptError          words the model does not know
└── EngineError          the engine cannot go on
    └── EngineClosed     it was used after close()

Every message is one sentence for a person: it names the value and what would be right.
"""


class PipelineError(Exception):
    """The base of everything that :mod:`pipeline` raises on purpose."""


class ConfigError(PipelineError):
    """A setting, size or preset that cannot be."""


class CheckpointError(PipelineError):
    """Weights that are missing, damaged or do not fit the model."""


class PromptError(PipelineError):
    """Words the model does not know; the message names the nearest it does."""


class EngineError(PipelineError):
    """The engine cannot go on."""


class EngineClosed(EngineError):  # noqa: N818 - reads as the state it reports
    """The engine was used after ``close()``."""


def first_line(error: BaseException) -> str:
    """Return an error's first line: CUDA's go on about debugging."""
    return str(error).partition("\n")[0]
