"""Tokenizer: a SentencePiece model with Llama's conventions (unk 0, bos 1, eos 2, pad := unk).

The same class reads Vicuna's `tokenizer.model` and the small models that `train_tokenizer` makes.
"""

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, open_atomic, require_file

WORD_START = "▁"

_UNK, _BOS, _EOS = 0, 1, 2

_WORDS_KEPT = 1 << 20


class _Lengths(dict[str, int]):
    """How many ids a word has with a space before it; the first million words are kept."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor):
        self._processor = processor

    def __missing__(self, word: str) -> int:
        length = len(self._processor.encode(f" {word}"))
        if len(self) < _WORDS_KEPT:
            self[word] = length
        return length


class Tokenizer:
    """Text to ids and back. Picklable: a worker process reads the model again, on first use.

    Special tokens are never read out of text: a literal "</s>" or "<image>" in a sentence is
    ordinary text. Raises UserError where the file is missing, is not a SentencePiece model, or
    breaks Llama's special ids.
    """

    def __init__(self, path: PathLike):
        self.path = str(path)
        self._processors  # noqa: B018  a wrong file is an error here, not in a worker later

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def __repr__(self) -> str:
        return f"Tokenizer({self.path!r})"

    @functools.cached_property
    def _model(self) -> bytes:
        return require_file(self.path, "tokenizer model").read_bytes()

    @functools.cached_property
    def _processors(
        self,
    ) -> tuple[sentencepiece.SentencePieceProcessor, sentencepiece.SentencePieceProcessor]:
        """One processor that adds no dummy prefix, one that does: index with the bool."""
        model = self._model
        processors = []
        for dummy_prefix in (False, True):
            try:
                proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
                # Not every SentencePiece release can override this on a loaded processor.
                proto.normalizer_spec.add_dummy_prefix = dummy_prefix
                processors.append(
                    sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
                )
            except Exception as error:
                raise UserError(
                    f"tokenizer model {self.path} is not a SentencePiece model "
                    f"({type(error).__name__}); it may be cut off, or a Git LFS pointer: "
                    "fetch it again."
                ) from None
        found = (processors[0].unk_id(), processors[0].bos_id(), processors[0].eos_id())
        if found != (_UNK, _BOS, _EOS):
            raise UserError(
                f"tokenizer model {self.path} has unk, bos, eos = {found}, expected "
                f"{(_UNK, _BOS, _EOS)} as in Llama; use a Llama or Vicuna tokenizer.model, or one "
                "trained by this project."
            )
        return processors[0], processors[1]

    @property
    def vocab_size(self) -> int:
        return self._processors[0].vocab_size()

    @property
    def bos_id(self) -> int:
        return _BOS

    @property
    def eos_id(self) -> int:
        return _EOS

    @property
    def pad_id(self) -> int:
        return _UNK

    @functools.cached_property
    def fingerprint(self) -> str:
        """The hash of the model file: equal fingerprints give equal ids."""
        return hashlib.sha256(self._model).hexdigest()[:16]

    def encode(self, text: str, dummy_prefix: bool = True) -> list[int]:
        """Ids of the text, without bos and eos.

        With `dummy_prefix` the text is read as if a space stood before it, as at the start of a
        sequence; without, as the continuation of what came before. Empty text has no ids.
        """
        return self._processors[dummy_prefix].encode(text)

    def count(self, text: str, dummy_prefix: bool = True) -> int:
        """How many ids `encode` gives. A word that was met before is looked up: measuring a whole
        dataset so takes a small part of the time."""
        if self._words_stand_apart and (dummy_prefix or text.startswith(" ")):
            words = (text if dummy_prefix else text[1:]).split(" ")
            # Runs of spaces have pieces of their own, and the mark is how a space is written.
            if "" not in words and WORD_START not in text:
                return sum(map(self._word_lengths.__getitem__, words))
        return len(self.encode(text, dummy_prefix))

    @functools.cached_property
    def _word_lengths(self) -> "_Lengths":
        return _Lengths(self._processors[False])

    @functools.cached_property
    def _words_stand_apart(self) -> bool:
        """Whether no piece reaches over a word's start, so that a text's ids are its words' ids."""
        proto = sentencepiece_model_pb2.ModelProto.FromString(self._model)  # type: ignore[attr-defined]
        normalizer = proto.normalizer_spec
        return (
            proto.trainer_spec.byte_fallback
            and not normalizer.precompiled_charsmap
            and not normalizer.remove_extra_whitespaces
            and all(WORD_START not in p.piece.lstrip(WORD_START) for p in proto.pieces)
        )

    def encode_without_mark(self, text: str) -> list[int]:
        """Encodes with a dummy prefix, then takes the word-start mark off the first piece.

        This is what a non-legacy Llama tokenizer of transformers 4.31 does after a special token
        ("▁US", "ER" -> "US", "ER"). Where the bare piece is not in the vocabulary (transformers
        would make it <unk>), the text is encoded without the prefix instead.
        """
        ids = self.encode(text)
        plain = self._processors[False]
        first = plain.id_to_piece(ids[0]) if ids else ""
        if not first.startswith(WORD_START):
            return ids
        bare = first.removeprefix(WORD_START)
        if not bare:
            return ids[1:]
        bare_id = plain.piece_to_id(bare)
        return self.encode(text, False) if bare_id == _UNK else [bare_id, *ids[1:]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; bos and eos vanish, and so does the first word's leading space.

        So do ids past the vocabulary: a model's embedding may be larger than its tokenizer's.
        """
        known = [int(i) for i in ids if i < self.vocab_size]
        return self._processors[True].decode(known)

    def text_decoder(self) -> "TextDecoder":
        """`decode` for ids that come one after the other."""
        return TextDecoder(*self._processors)

    def shown(self, ids: Sequence[int]) -> str:
        """The ids piece by piece, for a reader: spaces where words begin, "<s>", "</s>" and "<unk>"
        as they are called, bytes as the characters that they make (or U+FFFD)."""
        return b"".join(map(self.bytes_of, map(int, ids))).decode(errors="replace")

    def bytes_of(self, i: int) -> bytes:
        """What one id stands for, as UTF-8: of a byte piece, one byte of a character."""
        model = self._processors[False]
        if i >= self.vocab_size:
            return f"<{i}>".encode()
        if model.is_byte(i):
            return bytes([int(model.id_to_piece(i)[1:-1], 16)])
        return model.id_to_piece(i).replace(WORD_START, " ").encode()


class TextDecoder:
    """The text of ids that come one by one, each looked at once: joined, what `push` and `finish`
    return is what `decode` gives. Bytes are held back until they are a character, or can be none.
    """

    def __init__(
        self,
        plain: sentencepiece.SentencePieceProcessor,
        dummy_prefix: sentencepiece.SentencePieceProcessor,
    ):
        self._plain, self._first = plain, dummy_prefix
        self._begun = False
        self._bytes = b""

    def push(self, i: int) -> str:
        """The text that has become certain with this id."""
        if i >= self._plain.vocab_size():
            return ""
        if self._plain.is_byte(i):
            self._bytes += bytes([int(self._plain.id_to_piece(i)[1:-1], 16)])
            return self._characters(last=False)
        before = self._characters(last=True)
        # The text's first piece loses the space in front of it; bos and eos are no pieces of text.
        text = (self._plain if self._begun else self._first).decode([i])
        self._begun = self._begun or not self._plain.is_control(i)
        return before + text

    def finish(self) -> str:
        """The rest: of bytes that make no character each is U+FFFD."""
        return self._characters(last=True)

    def _characters(self, last: bool) -> str:
        text = ""
        while self._bytes:
            try:
                text, self._bytes = text + self._bytes.decode(), b""
            except UnicodeDecodeError as error:
                text += self._bytes[: error.start].decode()
                self._bytes = self._bytes[error.start :]
                if not last and error.reason == "unexpected end of data":
                    break
                # As SentencePiece does, byte for byte.
                text, self._bytes = text + "\ufffd", self._bytes[1:]
        self._begun = self._begun or bool(text)
        return text


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (line for line in text.split("\n") if line)


def train_tokenizer(
    texts: Iterable[str],
    path: PathLike,
    vocab_size: int,
    whole_numbers: bool = False,
    character_coverage: float = 0.99995,
    max_piece_length: int = 16,
    phrases: Sequence[str] = (),
) -> Tokenizer:
    """Trains a SentencePiece BPE model with Llama's settings, writes it to `path` and returns it.

    The same texts in the same order give the same file. `whole_numbers` lets pieces mix digits
    and punctuation, so that frequent coordinates such as "0.125" or "[0.125," become one piece;
    Llama (the default) splits every digit. Newlines enter no learnt piece: they are the byte piece
    <0x0A>, as in Llama. Each of `phrases` is one piece wherever it stands (a leading space or a
    newline belongs to it): what every sample repeats then costs a small model one token.
    `vocab_size` counts the 3 special and the 256 byte pieces.
    Raises UserError where the texts are empty or do not support the vocabulary size.
    """
    lines = _lines(texts)
    first = next(lines, None)
    if first is None:
        raise UserError("the texts to train a tokenizer on are empty; pass at least one sentence.")

    def sentences() -> Iterator[str]:
        yield first
        yield from lines

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            unk_id=_UNK,
            bos_id=_BOS,
            eos_id=_EOS,
            pad_id=-1,
            user_defined_symbols=[phrase.replace(" ", "▁") for phrase in phrases],
            byte_fallback=True,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            allow_whitespace_only_pieces=True,
            split_by_whitespace=True,
            split_digits=not whole_numbers,
            split_by_number=not whole_numbers,
            split_by_unicode_script=True,
            max_sentencepiece_length=max_piece_length,
            # Longer sentences would be left out without a word.
            max_sentence_length=1 << 24,
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        advice = str(error).split("] ")[-1].strip() or type(error).__name__
        raise UserError(
            f"SentencePiece cannot train {vocab_size} pieces from these texts for {path}: {advice} "
            "Change the vocabulary size, or give more text."
        ) from None
    with open_atomic(path, "wb") as file:
        file.write(model.getvalue())
    return Tokenizer(epath.Path(path))
