"""The columns of every table that a stage writes. No other module declares columns.

The metadata of a Parquet file holds the name and version of its `TableSpec`, the meaning of each
column, and the parameters that made the rows (provenance).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from flap.core.errors import UserError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_TABLE_KEY, _VERSION_KEY, _PROVENANCE_KEY = b"flap.table", b"flap.version", b"flap.provenance"


def _column(name: str, kind: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


_TEXT, _TEXTS = pa.string(), pa.list_(pa.field("item", pa.string(), nullable=False))
_INTS = pa.list_(pa.field("item", pa.int32(), nullable=False))
_FLOATS = pa.list_(pa.field("item", pa.float32(), nullable=False))


@dataclass(frozen=True)
class TableSpec:
    """Name, version and columns of one kind of table."""

    name: str
    version: int
    columns: tuple[pa.Field, ...]
    plain: tuple[str, ...] = ()
    """Columns of bytes stored uncompressed, so that `flap.mels.reader` can map them."""
    row_group_rows: int = 4096

    def schema(self, provenance: Mapping[str, Any]) -> pa.Schema:
        """Arrow schema whose metadata holds name, version and `provenance` (JSON)."""
        metadata = {
            _TABLE_KEY: self.name,
            _VERSION_KEY: str(self.version),
            _PROVENANCE_KEY: json.dumps(provenance, sort_keys=True),
        }
        return pa.schema(list(self.columns), metadata=metadata)

    def check(self, schema: pa.Schema, where: str) -> None:
        """Raise `UserError` naming `where` and the column unless `schema` is this table's."""
        metadata = schema.metadata or {}
        name = metadata.get(_TABLE_KEY, b"").decode() or "an unnamed table"
        if name != self.name:
            raise UserError(f"{where}: is {name}, expected {self.name}")
        version = metadata.get(_VERSION_KEY, b"").decode()
        if version != str(self.version):
            raise UserError(
                f"{where}: {name} has version {version}, this code reads {self.version}; "
                "rerun the stage that wrote it"
            )
        for column in self.columns:
            position = schema.get_field_index(column.name)
            if position < 0:
                raise UserError(f"{where}: column '{column.name}' of {name} is missing")
            found = schema.field(position).type
            if not found.equals(column.type):
                raise UserError(f"{where}: column '{column.name}' is {found}, not {column.type}")


def provenance(schema: pa.Schema) -> dict[str, Any]:
    """The parameters that the writing stage recorded."""
    return json.loads((schema.metadata or {}).get(_PROVENANCE_KEY, b"{}"))


CLIPS = TableSpec(
    "CLIPS",
    2,
    (
        _column("clip_id", _TEXT, "unique over all datasets: <dataset>/<name>"),
        _column("dataset", _TEXT, "key in params.yaml, section datasets"),
        _column("split", _TEXT, "train, val or test"),
        _column(
            "uri", _TEXT, "file that holds the recording: path from the project's root, or URL"
        ),
        _column("offset", pa.int64(), "first byte in a tar, null: the whole file", nullable=True),
        _column("n_bytes", pa.int64(), "bytes from offset on", nullable=True),
        _column("captions", _TEXTS, "captions as the corpus gives them, may be empty"),
        _column("labels", _TEXTS, "labels as the corpus gives them, may be empty"),
        _column("duration_s", pa.float64(), "seconds, if the corpus says", nullable=True),
        _column("licence", _TEXT, "licence of the recording, '' if unknown"),
        _column("source", _TEXT, "where the corpus has the recording from, '' if unknown"),
        _column("origin", _TEXT, "freesound:<id> or youtube:<id>, '' if unknown"),
    ),
)

MELS = TableSpec(
    "MELS",
    2,
    (
        _column("clip_id", _TEXT, "as in CLIPS"),
        _column("n_frames", pa.int32(), "rows of the log-mel"),
        _column("mel", pa.binary(), "fp16 log-mel, n_frames x n_mels, row-major; see mel_array"),
        _column("duration_s", pa.float64(), "seconds of the whole recording, if the file tells"),
        _column("source_rate_hz", pa.int32(), "sample rate of the recording, Hz"),
        _column("channels", pa.int32(), "channels of the recording"),
        _column("peak", pa.float32(), "largest absolute sample up to the cap, 1 = full scale"),
        _column(
            "loudness_lufs",
            pa.float32(),
            "ITU-R BS.1770, null below 0.4 s or -70 LUFS",
            nullable=True,
        ),
        _column("silence", pa.float32(), "share of hops with an RMS below -60 dBFS, 0..1"),
        _column("clipping", pa.float32(), "share of samples at full scale in any channel, 0..1"),
        _column("sha256", _TEXT, "of the recording's bytes"),
        _column("mel_xxh3", _TEXT, "XXH3-128 of mel: equal for equal samples in any container"),
    ),
    plain=("mel",),
    row_group_rows=32,  # 8 MB of 10-second clips
)

REJECTS = TableSpec(
    "REJECTS",
    2,
    (
        _column("clip_id", _TEXT, "as in CLIPS, or the row's name where none was made"),
        _column("split", _TEXT, "train, val or test, '' if the corpus does not say"),
        _column("stage", _TEXT, "stage that refused the row"),
        _column("reason", _TEXT, "one of REJECT_REASONS"),
        _column("detail", _TEXT, "what was found"),
    ),
)

REJECT_REASONS = frozenset(
    {
        "missing",  # no such recording
        "unreadable",  # no decoder takes it, or it breaks half-way
        "empty",  # no samples
        "too_short",  # less than audio.min_seconds
        "too_large",  # more than audio.max_megabytes
        "non_finite",  # NaN or infinity among the samples
        "silent",  # peak below audio.min_peak
        "no_caption",  # the corpus row has none, and its dataset asks for some
        "bad_split",  # the corpus row names a split that is none
        "duplicate",  # another row names the recording, and has its captions
        "outside",  # the path leaves the corpus folder or its archive
        "blacklisted",  # on the corpus's own list of clips to leave out
    }
)


def is_absent_clip(reason: str) -> bool:
    """Whether a reject with this reason is a clip that the corpus lists and that is not usable."""
    return reason not in ("duplicate", "blacklisted")


AUDIT = TableSpec(
    "AUDIT",
    1,
    (
        _column("clip_id", _TEXT, "as in MELS"),
        _column("dataset", _TEXT, "its corpus"),
        _column("split", _TEXT, "its split"),
        _column("finding", _TEXT, "one of AUDIT_FINDINGS"),
        _column("rule", _TEXT, "one of AUDIT_RULES"),
        _column("other", _TEXT, "clip_id of the clip that it equals, '' if none is meant"),
        _column("other_dataset", _TEXT, "corpus of `other`"),
        _column("other_split", _TEXT, "split of `other`"),
        _column("detail", _TEXT, "what was found"),
        _column("dropped", pa.bool_(), "whether training leaves the clip out"),
    ),
)

AUDIT_FINDINGS = frozenset(
    {
        "leak",  # in training, and the same recording as a clip of a val or test split
        "duplicate",  # the same recording as an earlier clip, both in training or both not
        "no_caption",  # there is none
        "long_caption",  # one has more than audit.max_caption_words
    }
)

AUDIT_RULES = frozenset(
    {
        "content",  # equal sha256, or else equal mel_xxh3
        "origin",  # equal origin that is not ''
        "",  # a finding about one clip alone
    }
)

TAGS = TableSpec(
    "TAGS",
    1,
    (
        _column("clip_id", _TEXT, "as in MELS"),
        _column("labels", _TEXTS, "AudioSet display names, best first, above the threshold"),
        _column("scores", _FLOATS, "probability of each label"),
        _column("tagger_id", _TEXT, "hash of the tagger's weights"),
    ),
)

CAPTIONS = TableSpec(
    "CAPTIONS",
    2,
    (
        _column("clip_id", _TEXT, "as in CLIPS"),
        _column("original", _TEXT, "the caption that was given to the LLM"),
        _column("tags", _TEXTS, "labels that were given to the LLM, best first"),
        _column("prompt_id", _TEXT, "name and hash of the prompt"),
        _column("model", _TEXT, "name of the LLM"),
        _column("revision", _TEXT, "revision or hash of its weights"),
        _column("sampling", _TEXT, "JSON: temperature, max_tokens, seed"),
        _column("enriched", _TEXT, "the LLM's answer, '' if the request failed"),
        _column("attempt", pa.int32(), "which try `enriched` is, from 0; each has another seed"),
        _column("n_words", pa.int32(), "words in `enriched`"),
        _column("n_tokens", pa.int32(), "tokens of `enriched` by the LLM's tokenizer, 0: unknown"),
        _column("tag_coverage", pa.float32(), "share of tags named in `enriched`, 0..1"),
        _column("original_coverage", pa.float32(), "share of tags named in `original`, 0..1"),
        _column("faithfulness", pa.float32(), "share of the original's content words kept, 0..1"),
        _column("invented", pa.float32(), "share of `enriched` in neither original nor tags"),
        _column("invented_sounds", pa.int32(), "AudioSet sounds named that are in neither"),
        _column("kept", pa.bool_(), "whether training uses `enriched`"),
        _column("reason", _TEXT, "why not, '' if kept"),
        _column("error", _TEXT, "what the server said if the request failed"),
        _column("requests", pa.int32(), "answers that the row was made of, over all tries"),
        _column("prompt_tokens", pa.int32(), "tokens sent, over all tries"),
        _column("answer_tokens", pa.int32(), "tokens answered, over all tries"),
    ),
)

RANKS = TableSpec(
    "RANKS",
    2,
    (
        _column("benchmark", _TEXT, "key in params.yaml, section benchmarks"),
        _column("direction", _TEXT, "text_to_audio, audio_to_text or audio_to_class"),
        _column("query_id", _TEXT, "clip_id, for captions followed by #<position>"),
        _column("clip_id", _TEXT, "the clip that the query is or describes"),
        _column("rank", pa.int32(), "of the best right answer, 1 = first"),
        _column("ties", pa.int32(), "wrong answers with exactly the best right answer's score"),
        _column("positions", _INTS, "of all right answers, in the order of the candidates"),
        _column("candidates", pa.int32(), "answers that were ranked"),
    ),
)


def mel_bytes(mel_TF: np.ndarray) -> bytes:
    """Log-mel (frames, mel bins) as the bytes of the column `mel`."""
    return np.ascontiguousarray(mel_TF, dtype="<f2").tobytes()


def mel_array(mel: bytes | pa.Buffer, n_frames: int) -> np.ndarray:
    """The column `mel` of one row as a read-only fp16 array (frames, mel bins), no copy.

    rows = pandas.read_parquet("data/audio/demo")
    mel_TF = mel_array(rows.mel[0], rows.n_frames[0]).astype("float32")
    """
    return np.frombuffer(mel, dtype="<f2").reshape(n_frames, -1)
