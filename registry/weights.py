"""Weight files, of whichever format: which it is, and what its checked header tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Final

from registry import gguf, safetensors
from registry.gguf import GGUFHeader, ModelFacts, ProjectorFacts
from registry.gguf.facts import parameter_size, rounded_size
from registry.safetensors import SafetensorsHeader
from schemas.errors import MalformedModel

GGUF: Final = "gguf"
SAFETENSORS: Final = "safetensors"
_MAGIC: Final = b"GGUF"


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """What is known of a model from its weight files.

    Attributes:
        format: ``gguf`` or ``safetensors``, as ModelPack writes it.
        model: As far as the format tells.
        projector: Of a projector; or of the one beside a model, which lets it see.
    """

    format: str
    model: ModelFacts
    projector: ProjectorFacts | None = None

    def document(self) -> dict[str, Any]:
        """For the catalogue; a GGUF file's are its model facts and nothing else."""
        facts = asdict(self.model)
        if self.projector is not None:
            facts["projector"] = asdict(self.projector)
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
        return gguf_facts(gguf.read_header(source, size, projectors=True))
    return WeightFacts(SAFETENSORS, _of_safetensors(safetensors.read_header(source, size)))


def gguf_facts(header: GGUFHeader) -> WeightFacts:
    """What the header of a GGUF file tells, a projector's too."""
    sees = gguf.projector_facts(header) if gguf.is_projector(header) else None
    return WeightFacts(GGUF, gguf.model_facts(header), sees)


def together(found: Sequence[WeightFacts]) -> WeightFacts:
    """What several weight files tell of the one model that they make.

    Args:
        found: At least one, in the order of the model's layers; of shards, each has some of the
            tensors.

    Raises:
        MalformedModel: Projectors alone are no model.
    """
    models = [facts for facts in found if facts.projector is None]
    if not models:
        raise MalformedModel(
            "there is no model",
            why="a projector for images (mmproj) is no model of its own",
            hint="Put the model's own file beside it in a folder, and name the folder",
        )
    whole = _joined(models)
    sees = [
        replace(facts.projector, file=number)
        for number, facts in enumerate(found)
        if facts.projector is not None
    ]
    makes_text = "completion" in whole.model.capabilities
    if len(models) > 1 or len(sees) != 1 or not makes_text:
        return whole
    able = (*whole.model.capabilities, "vision")
    return replace(whole, model=replace(whole.model, capabilities=able), projector=sees[0])


def _joined(found: Sequence[WeightFacts]) -> WeightFacts:
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
