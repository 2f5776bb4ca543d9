"""Fuzz what strangers send, guided by coverage: python tests/fuzz.py offer -max_total_time=60.

It takes atheris (extra ``fuzz``), which is not in the suite, and runs the properties of
test_stream_hostile.py; what follows the name goes to libFuzzer. It ends at the first input
that breaks a property, with the input, or when the time is over.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["stream", "pipeline.prompts", "aiortc.sdp"]):
    import test_stream_hostile as properties

SEEDS, SEED_BYTES = 32, 2048
TARGETS = {
    "offer": properties.test_offer_is_passed_or_refused,
    "fragment": properties.test_fragment_is_read_or_refused,
    "message": properties.test_control_message_is_read_or_refused,
    "query": properties.test_query_is_read_or_refused,
    "prompt": properties.test_prompt_is_read_or_refused,
    "payload": properties.test_payload_is_read,
}


def main() -> None:
    """Run one property until it breaks."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"fuzz.py takes one of {', '.join(TARGETS)} (got {name!r})")
    target = TARGETS[name].hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as corpus:
        # From nothing libFuzzer tries inputs of a few bytes for a long time.
        for number in range(SEEDS):
            seed = random.Random(number).randbytes(SEED_BYTES)
            (Path(corpus) / str(number)).write_bytes(seed)
        arguments = [sys.argv[0], "-len_control=0", *sys.argv[2:], corpus]
        atheris.Setup(arguments, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
