"""The embedded models and their cards."""

from importlib import resources
from pathlib import Path

from pipeline.errors import CheckpointError

TINY_WEIGHTS = "sdxs-tiny.safetensors"
TINY_IR = "sdxs-tiny.xml"
SKETCH_WEIGHTS = "sdxs-tiny-sketch.safetensors"
PERSON_IR = "person-mask.xml"


def embedded(name: str) -> Path:
    """The path of one of the package's weight files.

    Raises:
        CheckpointError: the installation lacks it.
    """
    path = Path(str(resources.files(__name__) / name))
    if not path.is_file():
        raise CheckpointError(
            f"the embedded model's file {name} is missing; install the package again"
        )
    return path
