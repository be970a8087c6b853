"""Messages that nobody should send to a real task, through the job's own steps, with the account of each."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import apache_beam as beam
import fuzz
import tiny_models as tiny
import tiny_writers as writers

from pipeline.clients import LIMITS
from pipeline.direct.event_time import parse_timestamp
from pipeline.publish import outgoing
from transforms.audit import AuditContext, _WriteFn
from transforms.dead_letter import dead_letter_in_any_case
from transforms.decode import _DecodeFn
from transforms.encode import _EncodeFn
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.task_table import TASKS
from transforms.records import AUDIT_SCHEMA, Failure, Message, Prediction, Result
from transforms.windowing import Windowing

#: The tiny model of each task that weights can do.
MODELS: dict[str, Callable[[], str]] = {
    "text-classification": tiny.sentiment,
    "token-classification": tiny.entities,
    "zero-shot-classification": tiny.entailment,
    "text2text-generation": writers.t5,
    "summarization": writers.bart,
    "translation": writers.mbart,
    "fill-mask": tiny.masked,
    "question-answering": tiny.answering,
    "feature-extraction": tiny.body,
    "sentence-similarity": tiny.body,
    "text-ranking": writers.ranker,
    "text-generation": tiny.causal,
    "image-classification": tiny.animals,
    "image-feature-extraction": tiny.vision_body,
    "zero-shot-image-classification": tiny.clip,
    "object-detection": tiny.detector,
    "image-text-to-text": tiny.captioner,
    "audio-classification": tiny.sounds,
    "automatic-speech-recognition": tiny.letters,
    "depth-estimation": tiny.depths,
    "image-segmentation": tiny.segmenter,
}
assert set(MODELS) <= set(TASKS)

_FORMATS = (
    "{}",
    "{0}",
    "{[x]}",
    "{:>99999999999}",
    "{!r:{}}",
    "{",
    "}{",
    "%s %(x)s",
    "This is {}.",
    "{} {}",
    "{.__class__}",
)
_NUMBERS = (
    0,
    1,
    -1,
    2**31,
    2**63 - 1,
    -(2**63),
    2**70,
    1e308,
    -1e308,
    5e-324,
    0.5,
    1.0,
    True,
    False,
    None,
    "3",
    [],
    {},
)
#: A word that bodies hold and nothing else: where it stands besides the message, what is said quotes messages.
MARK = "w0rd-0f-a-message"
_WORDS = (
    MARK,
    MARK,
    "good order",
    "   ",
    "",
    "\u200b",
    "😀",
    "[MASK]",
    "my [MASK] is [MASK]",
    "x" * 5_000,
    "\x00",
    "\ufdd0\ufdd1",
    "а́" * 40,
    "1e5",
)
_URIS = (
    "http://169.254.169.254/latest",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "gs://",
)


def message(random: Random, task: str, number: int) -> Message:
    """One message to ``task``: one in four is a good one, which the others are to leave alone."""
    attributes: dict[str, str] = {}
    if random.random() < 0.25:
        data = json.dumps({"inputs": _good(random, task), "parameters": TASKS[task].tried_with(_good_parameters(task))})
        return Message(data.encode(), {"content-type": "application/json"}, str(number), 1.0, 1.0)
    if random.random() < 0.15:
        odd = fuzz.payload(random)
        return Message(odd.data, odd.attributes, str(number), _time(random), _time(random), odd.ordering_key)
    inputs = random.choice((_text, _text, _shaped, _shaped, _media, fuzz._value))
    value = inputs(random, 3) if inputs is fuzz._value else inputs(random, task)
    body: dict[str, Any] = {"inputs": value}
    if random.random() < 0.6:
        body["parameters"] = _parameters(random, task)
    if random.random() < 0.02:
        body["\ud800"] = "\udfff"
    data = json.dumps(body, ensure_ascii=random.random() < 0.7).encode("utf-8", "surrogatepass")
    if isinstance(value, str) and random.random() < 0.2:
        raw = _picture(random) if random.random() < 0.5 else _sound(random)
        data, attributes["content-type"] = random.choice(
            ((raw, "image/png"), (raw, "audio/wav"), (value.encode("utf-8", "replace"), "text/plain; charset=utf-16"))
        )
    if random.random() < 0.05:
        data, attributes["Content-Encoding"] = gzip.compress(data), "gzip"
    return Message(data, attributes, str(number), _time(random), _time(random))


def _good(random: Random, task: str) -> Any:
    """An input that ``task``'s tiny model has an answer to."""
    entry, words = TASKS[task], tiny.text_of(random.randint(1, 20), random.randrange(99))
    if entry.modality == "audio":
        return tiny.b64(tiny.wav(tiny.tone(random.choice((0.1, 0.2, 0.4)))))
    if entry.modality == "image":
        picture = tiny.b64(tiny.png(tiny.picture(random.randint(20, 60), random.randint(20, 60), random.randrange(9))))
        return picture if entry.is_file else {"image": picture, "text": words, "question": words}
    if task == "fill-mask":
        return f"{words} [MASK]"
    return words if entry.small is None or isinstance(entry.small, str) else entry.small


def _good_parameters(task: str) -> dict[str, Any]:
    """What ``task``'s tiny model needs to answer, and to answer soon."""
    known = {"max_new_tokens": 2, "src_lang": "en_XX", "tgt_lang": "ro_RO"}
    return {name: value for name, value in known.items() if name in TASKS[task].parameters}


def _time(random: Random) -> float:
    text = random.choice(("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-11-25T00:00:00Z", "-1", "x"))
    return random.choice((parse_timestamp(text, 1.0), 0.0, 1.8e9, -62_135_596_800.0, 253_402_300_799.0))


def _text(random: Random, task: str) -> Any:
    return random.choice(
        (random.choice(_WORDS), tiny.text_of(random.randint(1, 90), random.randrange(99)), random.choice(_URIS))
    )


def _picture(random: Random) -> bytes:
    return _damaged(random, tiny.png(tiny.picture(random.randint(1, 60), random.randint(1, 60), random.randrange(9))))


def _sound(random: Random) -> bytes:
    return _damaged(
        random, tiny.wav(tiny.tone(random.choice((0.0001, 0.05, 0.2))), random.choice((4_000, 8_000, 16_000)))
    )


def _damaged(random: Random, data: bytes) -> bytes:
    how = random.randrange(5)
    if how == 0:
        return data[: random.randrange(len(data))]
    if how == 1:
        changed = bytearray(data)
        for _ in range(random.randint(1, 6)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)
    return data


def _media(random: Random, task: str) -> Any:
    raw = _sound(random) if "audio" in task or "speech" in task else _picture(random)
    text = base64.b64encode(raw).decode()
    return random.choice(
        (text, text[:-1], text.replace("+", "-").replace("/", "_"), "\n".join(re.findall(".{1,76}", text)))
    )


def _shaped(random: Random, task: str) -> Any:
    """The shapes that some task takes, filled at random."""
    text = lambda: random.choice((_text(random, task), fuzz._value(random, 1)))  # noqa: E731
    picture = lambda: random.choice((_media(random, task), text()))  # noqa: E731
    part = lambda: random.choice(  # noqa: E731
        (
            {"type": "text", "text": text()},
            {"type": "image_url", "image_url": {"url": random.choice(_URIS)}},
            {"type": "image", "image": picture()},
            fuzz._value(random, 1),
        )
    )
    return random.choice(
        (
            lambda: {"question": text(), "context": text()},
            lambda: {"text": text(), "text_pair": text()},
            lambda: {"query": text(), "texts": [text() for _ in range(random.randrange(4))]},
            lambda: {"source_sentence": text(), "sentences": [text() for _ in range(random.randrange(4))]},
            lambda: {"image": picture(), "question": text()},
            lambda: {"image": picture(), "text": text()},
            lambda: [text() for _ in range(random.randrange(4))],
            lambda: [[text(), text()]],
            lambda: [{"role": random.choice(("user", "assistant", "system", "x", 3)), "content": text()}],
            lambda: [{"role": "user", "content": [part() for _ in range(random.randrange(4))]}],
        )
    )()


def _parameters(random: Random, task: str) -> Any:
    if random.random() < 0.1:
        return fuzz._value(random, 2)
    names = list(TASKS[task].parameters)
    given: dict[str, Any] = {}
    for name in random.sample(names, min(len(names), random.randrange(4))):
        given[name] = random.choice(
            (
                random.choice(_NUMBERS),
                random.choice(_FORMATS),
                random.choice(_WORDS),
                ["a", "b"],
                fuzz._value(random, 2),
            )
        )
    if "candidate_labels" in names and random.random() < 0.7:
        given["candidate_labels"] = random.choice((["good", "bad"], "a,b", ["x" * 2_000], [""], ["a"] * 99))
    if "tgt_lang" in names and random.random() < 0.7:
        given["src_lang"], given["tgt_lang"] = random.choice(
            (("en_XX", "ro_RO"), ("de_DE", "en_XX"), ("en", "de"), ("<s>", "</s>"))
        )
    if "max_new_tokens" in names and "max_new_tokens" not in given:
        given["max_new_tokens"] = 2
    if random.random() < 0.05:
        given[random.choice(("x", "x" * 5_000, MARK))] = 1
    return given


class _Rows:
    """An audit sink that keeps what it is given, and refuses what is no row."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        for row, row_id in zip(rows, row_ids, strict=True):
            json.dumps(row, allow_nan=False)
            assert len(row_id) <= 128 and set(row) == {column["name"] for column in AUDIT_SCHEMA}
            self.rows[row["message_id"]] = row
        return {}


class _Causes(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.quoted = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.quoted += MARK in record.getMessage()
        if record.name != "transforms.barrier":
            return
        lines = record.getMessage().splitlines()
        places = [line.strip() for line in lines if line.strip().startswith("File ")]
        own = [place for place in places if "transforms" in place or "pipeline" in place]
        self.found[f"{lines[0].split()[1]} {(own or places or [''])[-1]}"] += 1


def run(task: str, count: int, seed: int, audit_input: str = "hash") -> tuple[Counter[str], Counter[str]]:
    """Sends ``count`` messages to ``task``'s model; returns how many ended how, and the causes of ``Unexpected``.

    Raises:
        AssertionError: a message ended not at all or twice, without a row, or as what no topic takes.
    """
    random = Random(f"{seed}/{task}")
    messages = [message(random, task, number) for number in range(count)]
    handler = HuggingFaceModelHandler(MODELS[task](), task, device="cpu", dtype="float32")
    model, sink, causes = handler.load_model(), _Rows(), _Causes()
    logger = logging.getLogger("transforms")
    logger.addHandler(causes)
    try:
        requests, failures = _through(_DecodeFn(None), messages)
        answers = handler.run_inference(requests, model)
        assert all(isinstance(answer, Prediction | Failure) for answer in answers)
        failures += [answer for answer in answers if isinstance(answer, Failure)]
        results, refused = _through(_EncodeFn(LIMITS), [one for one in answers if isinstance(one, Prediction)])
        context = AuditContext(
            Windowing.parse(random.choice(("fixed:60", "sliding:600:7", "session:3600"))), "job", "0"
        )
        context = AuditContext(context.windowing, "job", "0", audit_input)
        written, rejected = _through(_WriteFn(sink, context), results)
        dead, _ = _through(_WriteFn(sink, context), [*failures, *refused, *rejected])
        letters = [dead_letter_in_any_case(failure, LIMITS) for failure in dead]
    finally:
        logger.removeHandler(causes)
    for record in (*written, *letters):
        outgoing(record)._to_proto_str(for_publish=True)
        if isinstance(record, Result):
            json.loads(record.data, parse_constant=_no_number)
    ended = Counter(_id(record) for record in (*written, *dead))
    assert not causes.quoted, "a log line quotes a message"
    assert ended == Counter(one.message_id for one in messages), "each message ends once"
    assert set(sink.rows) == set(ended), "each has its row"
    for failure in dead:
        assert len(failure.error) <= 2_000
        if audit_input != "full":
            assert MARK not in sink.rows[failure.message.message_id]["error"]
    return Counter(["ok" for _ in written] + [failure.error_type for failure in dead]), causes.found


def _no_number(name: str) -> None:
    raise AssertionError(f"{name} in a result")


def _id(record: Any) -> str:
    return (record.message if isinstance(record, Failure) else record.prediction.request.message).message_id


def _through(step: beam.DoFn, elements: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What a step makes of ``elements``, and its failures, as one bundle of a runner's."""
    step.setup()
    step.start_bundle()
    outputs = [output for element in elements for output in step.process(element) or ()]
    for output in step.finish_bundle() or ():
        tagged = isinstance(output, beam.pvalue.TaggedOutput)
        value = output.value.value if tagged else output.value
        outputs.append(beam.pvalue.TaggedOutput(output.tag, value) if tagged else value)
    failures = [output.value for output in outputs if isinstance(output, beam.pvalue.TaggedOutput)]
    return [output for output in outputs if not isinstance(output, beam.pvalue.TaggedOutput)], failures
