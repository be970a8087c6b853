"""How a model that translates is told from which language into which: three ways, by the files of its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.models.errors import InvalidParameter, brief

_PAIR = re.compile(r"translation_(.+)_to_(.+)")

#: NLLB's names of languages, which its tokenizer has among its marks.
_NLLB = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")

#: Names of languages that an error lists.
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Told:
    """What comes of the languages that a message names.

    ``source`` is set in the tokenizer where it has one, ``prefix`` goes before the text, ``settings`` to ``generate``.
    """

    source: str | None = None
    prefix: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


class Languages:
    """The languages of one model. ``needed`` says that a message must name them where the folder does not.

    mBART, NLLB and M2M100 have a token for each language, which the tokenizer puts beside the text, and with which the
    answer begins. Marian's models for several targets read a mark such as ``>>fra<<`` before the text. T5's
    configuration has a prefix for each pair.
    """

    def __init__(self, tokenizer: Any, config: Any, generation: Any, needed: bool) -> None:
        self.needed = needed
        self.codes = _codes(tokenizer)
        self.marks = {code[2:-2] for code in getattr(tokenizer, "supported_language_codes", None) or ()}
        special = getattr(config, "task_specific_params", None)
        self.pairs: dict[tuple[str, str], Mapping[str, Any]] = {}
        for name, settings in special.items() if isinstance(special, dict) else ():
            pair = _PAIR.fullmatch(name)
            if pair and isinstance(settings, dict):
                self.pairs[pair[1], pair[2]] = settings
        # A model that was trained for one pair says so: its answers begin with the target's token by themselves.
        ids = set(self.codes.values())
        self.starts = getattr(config, "decoder_start_token_id", None) in ids
        fixed = self.starts or getattr(generation, "forced_bos_token_id", None) in ids
        # Every tokenizer of these has a source language, asked for or not: believed in a model of one pair only.
        self.usual: str | None = tokenizer.src_lang if self.codes else None
        self.fixed = fixed

    def told(self, text: str, parameters: Mapping[str, Any]) -> Told:
        """What ``parameters`` say of the languages of ``text``.

        Raises:
          InvalidParameter: the model does not know one, or one is missing.
        """
        source, target = parameters.get("src_lang"), parameters.get("tgt_lang")
        if self.codes:
            return self._coded(source, target)
        if self.marks:
            return self._marked(text, source, target)
        if self.pairs and (source or target or self.needed):
            return self._prefixed(source, target)
        given = next((name for name in ("src_lang", "tgt_lang") if name in parameters), None)
        if given:
            raise InvalidParameter(
                f"parameters.{given}={brief(parameters[given])}: this model takes no languages; leave it out"
            )
        return Told()

    def _coded(self, source: str | None, target: str | None) -> Told:
        for name, language in (("src_lang", source), ("tgt_lang", target)):
            if language is None and self.needed and not self.fixed:
                raise InvalidParameter(f"parameters.{name}: needed by this model; {self._known(self.codes)}")
            if language is not None and language not in self.codes:
                raise InvalidParameter(f"parameters.{name}={brief(language)}: {self._known(self.codes)}")
        source = source or self.usual
        if target is None:
            return Told(source)
        begins = "decoder_start_token_id" if self.starts else "forced_bos_token_id"
        return Told(source, settings={begins: self.codes[target]})

    def _marked(self, text: str, source: str | None, target: str | None) -> Told:
        if source is not None:
            raise InvalidParameter(f"parameters.src_lang={brief(source)}: this model takes tgt_lang only; leave it out")
        marked = text.startswith(">>")
        if target is None:
            if self.needed and not (marked and text[2:].partition("<<")[0] in self.marks):
                raise InvalidParameter(f"parameters.tgt_lang: needed by this model; {self._known(self.marks)}")
            return Told()
        if target not in self.marks:
            raise InvalidParameter(f"parameters.tgt_lang={brief(target)}: {self._known(self.marks)}")
        return Told(prefix="" if marked else f">>{target}<< ")

    def _prefixed(self, source: str | None, target: str | None) -> Told:
        fitting = [pair for pair in self.pairs if source in (None, pair[0]) and target in (None, pair[1])]
        if len(fitting) != 1:
            known = ", ".join(f"{one} to {other}" for one, other in self.pairs)
            asked = " to ".join(brief(one) if one else "any" for one in (source, target))
            raise InvalidParameter(
                f"parameters.src_lang, tgt_lang ({asked}): must name one of the pairs that this model has: {known}"
            )
        settings = self.pairs[fitting[0]]
        return Told(prefix=str(settings.get("prefix") or ""), settings=settings)

    def _known(self, names: Any) -> str:
        some = sorted(names)
        more = f", … ({len(some)} in all)" if len(some) > _LISTED else ""
        return f"the model's languages are {', '.join(some[:_LISTED])}{more}"


def _codes(tokenizer: Any) -> dict[str, int]:
    """The token of each language; empty where the tokenizer has none."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    found = getattr(tokenizer, "lang_code_to_id", None)
    if found is None:
        found = {code: i for code, i in tokenizer.get_added_vocab().items() if _NLLB.fullmatch(code)}
    return {code: i for code, i in found.items() if i is not None and i != tokenizer.unk_token_id}
