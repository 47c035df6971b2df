"""Weight files, of whichever format: which it is, and what its checked header tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Final

from registry import gguf, safetensors
from registry.gguf import ModelFacts
from registry.gguf.facts import parameter_size, rounded_size
from registry.safetensors import SafetensorsHeader

GGUF: Final = "gguf"
SAFETENSORS: Final = "safetensors"
_MAGIC: Final = b"GGUF"


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """What is known of a model from its weight files.

    Attributes:
        format: ``gguf`` or ``safetensors``, as ModelPack writes it.
        model: As far as the format tells.
    """

    format: str
    model: ModelFacts

    def document(self) -> dict[str, Any]:
        """For the catalogue; a GGUF file's are its model facts and nothing else."""
        facts = asdict(self.model)
        return facts if self.format == GGUF else {**facts, "format": self.format}


def format_of(facts: Mapping[str, Any]) -> str:
    """The format of the model that a :meth:`WeightFacts.document` speaks of."""
    return str(facts.get("format") or GGUF)


def weight_facts(source: BinaryIO, size: int) -> WeightFacts:
    """Read and check the header of a weight file; its content decides what it is, not its name.

    Args:
        source: Seekable, stands at the file's start; is read a little past the header.
        size: Bytes of the whole file.

    Raises:
        MalformedModel: It is neither, or one that may not reach an engine.
    """
    start = source.tell()
    magic = source.read(len(_MAGIC))
    source.seek(start)
    if magic == _MAGIC:
        return WeightFacts(GGUF, gguf.model_facts(gguf.read_header(source, size)))
    return WeightFacts(SAFETENSORS, _of_safetensors(safetensors.read_header(source, size)))


def together(found: Sequence[WeightFacts]) -> WeightFacts:
    """What several weight files tell of the one model that they make.

    Args:
        found: At least one; of shards, each has some of the tensors.
    """
    if len(found) == 1:
        return found[0]
    formats = {facts.format for facts in found}
    count = sum(facts.model.parameters for facts in found)
    most = max(found, key=lambda facts: facts.model.parameters)
    return WeightFacts(
        formats.pop() if len(formats) == 1 else "mixed",
        replace(
            most.model,
            parameters=count,
            parameter_size=parameter_size(count),
            size_label=rounded_size(count),
        ),
    )


def _of_safetensors(header: SafetensorsHeader) -> ModelFacts:
    sizes: Counter[str] = Counter()
    count = 0
    for tensor in header.tensors:
        sizes[tensor.dtype] += tensor.size_bytes
        count += tensor.size_bytes * 8 // safetensors.DTYPE_BITS[tensor.dtype]
    return ModelFacts(
        name="",
        architecture="",
        parameters=count,
        parameter_size=parameter_size(count),
        size_label=rounded_size(count),
        quantization=sizes.most_common(1)[0][0] if sizes else "",
        context_length=None,
        embedding_length=None,
        block_count=None,
        license="",
        languages=(),
        capabilities=(),
        chat_template_sha256=None,
    )
