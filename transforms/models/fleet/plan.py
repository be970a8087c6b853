"""What is in force: a models file, each of its models at a revision, and the version that names both."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from transforms.models.fleet.file import ModelsFile
from transforms.models.fleet.variant import Variant
from transforms.records import ModelInfo


@dataclass(frozen=True, eq=False)
class Plan:
    """A file and its models, each at the revision that it serves at; compared by identity."""

    file: ModelsFile
    variants: Mapping[str, Variant]
    since: float = field(default_factory=time.time)
    _infos: dict[tuple[str, ModelInfo | None], ModelInfo] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The first digits of the file's SHA-256, and of one over the revisions."""
        return version(self.file, self.variants)

    def keys(self) -> set[Hashable]:
        """What its models are kept by."""
        return {each.key for each in self.variants.values() if not each.remote}

    def info(self, name: str, info: ModelInfo | None) -> ModelInfo:
        """``info`` with the model's name in the file, and this version; the same object for the same."""
        found = self._infos.get((name, info))
        if found is None:
            of = info or (self.variants[name].info() if name else ModelInfo("", "", "", "", ""))
            found = dataclasses.replace(of, variant=name or None, models_version=self.version)
            self._infos[name, info] = found
        return found

    def with_variant(self, variant: Variant) -> Plan:
        """The same file with ``variant`` in the place of the one of its name."""
        return Plan(self.file, {**self.variants, variant.name: variant})


def version(file: ModelsFile, variants: Mapping[str, Variant]) -> str:
    """``8 digits-6 digits``: the file's, as ``sha256sum`` begins, and the revisions'."""
    revisions = "".join(f"{name}={each.revision}\n" for name, each in sorted(variants.items()))
    return f"{file.digest[:8]}-{hashlib.sha256(revisions.encode()).hexdigest()[:6]}"
