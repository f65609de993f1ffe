"""Write demo.gguf: a llama model small enough for a git repository, built by hand.

It is not trained. Every token of the recital is one dimension of the embedding, and the output
matrix leads from each to the next, so whatever it is asked it says RECITAL and stops. Attention and
feed-forward are zero: they run, and add nothing. That makes its answer the same with every engine,
seed and temperature, which is what a first run and a test want of it.

The bytes depend on this file alone (no random numbers): `python demo/make.py --check` proves it.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

RECITAL = (
    "Hello from your own machine! I am a tiny demo model and, whatever you ask, this is my only "
    "answer. It shows that file, engine and server work. For real conversation, choose something "
    "larger."
)
DEMO = Path(__file__).with_name("demo.gguf")

CONTEXT = 4096  # tokens; nearly every letter of a prompt is one here, 512 would be a paragraph
WIDTH = 64  # the embedding: one dimension per step of the recital, and one head of a common size
CERTAINTY = 16.0  # the next token's logit is this times sqrt(WIDTH): no temperature tempts it away
CLOSERS = ']}"'  # said where a grammar forbids the recital, the last one first: JSON ends soon
UNKNOWN, BOS, EOS = 0, 1, 2
SPACE = "\u2581"  # how SentencePiece spells a space
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Token = tuple[str, float, gguf.TokenType]  # text, score, type


def recital() -> list[str]:
    """Return the tokens to say: the words, each with the space before it."""
    words = RECITAL.replace(" ", " " + SPACE).split(" ")
    if len(set(words)) != len(words):
        raise ValueError("a word that occurs twice would make the recital jump or loop")
    if len(words) >= WIDTH:
        raise ValueError(f"{len(words)} words need an embedding wider than {WIDTH}")
    return words


def vocabulary(words: list[str]) -> list[Token]:
    """Return the tokens: bytes make any text a prompt, pieces make words.

    SentencePiece joins two neighbours only into a piece that exists, the best score first, so
    each word brings all its beginnings. Later steps of a word score higher: it is then finished
    before anything else takes a letter of it.
    """
    control = ["<s>", "<|im_end|>", "<|im_start|>"]
    tokens = [("<unk>", 0.0, gguf.TokenType.UNKNOWN)]
    tokens += [(text, 0.0, gguf.TokenType.CONTROL) for text in control]
    tokens += [(f"<0x{byte:02X}>", 0.0, gguf.TokenType.BYTE) for byte in range(256)]
    letters = [SPACE, *map(chr, range(0x21, 0x7F))]
    beginnings = {word[:n] for word in words for n in range(2, len(word) + 1)}
    pieces = [*letters, *sorted(beginnings | set(words) - set(letters))]
    tokens += [(text, float(len(text)), gguf.TokenType.NORMAL) for text in pieces]
    return tokens


def weights(texts: list[str], words: list[str]) -> dict[str, np.ndarray]:
    """Return the tensors: dimension 0 means "begin", dimension n "word n has been said"."""
    embedding = np.zeros((len(texts), WIDTH), np.float16)
    output = np.zeros((len(texts), WIDTH), np.float16)
    embedding[:, 0] = 1
    for rank, mark in enumerate(CLOSERS, start=1):
        output[texts.index(mark)] = rank * CERTAINTY / 8
    for step, word in enumerate(words, start=1):
        token = texts.index(word)
        embedding[token] = 0
        embedding[token, step] = 1
        output[token, step - 1] = CERTAINTY
    output[EOS, len(words)] = CERTAINTY
    square = np.zeros((WIDTH, WIDTH), np.float16)
    block = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    norms = ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"]
    return {
        "token_embd.weight": embedding,
        **{f"blk.0.{name}.weight": square for name in block},
        **{f"{name}.weight": np.ones(WIDTH, np.float32) for name in norms},
        "output.weight": output,
    }


def describe(writer: gguf.GGUFWriter) -> None:
    """Write what a person or an engine may want to know before loading it."""
    writer.add_name("llamafile-recipe demo")
    writer.add_description("Built by hand, not trained: it recites one text and stops.")
    writer.add_license("Apache-2.0")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)


def add_tokenizer(writer: gguf.GGUFWriter, tokens: list[Token]) -> None:
    """Write the vocabulary, what its special tokens mean, and how a chat is spelled."""
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)  # else a grammar does not know its own prompt again
    writer.add_chat_template(CHAT_TEMPLATE)


def model() -> bytes:
    """Return the whole file."""
    words = recital()
    tokens = vocabulary(words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, DEMO.name)
        writer = gguf.GGUFWriter(path, "llama")
        describe(writer)
        add_tokenizer(writer, tokens)
        for name, tensor in weights([text for text, _, _ in tokens], words).items():
            writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def main(arguments: list[str]) -> int:
    """Write the file, or with --check say whether the one that is here is the one."""
    if arguments not in ([], ["--check"]):
        print("usage: python demo/make.py [--check]", file=sys.stderr)
        return 2
    made = model()
    if not arguments:
        DEMO.write_bytes(made)
    elif not DEMO.is_file() or DEMO.read_bytes() != made:
        print(f"{DEMO} is not what make.py writes: run python demo/make.py", file=sys.stderr)
        return 1
    print(f"{DEMO.name}  {len(made)} bytes  sha256:{hashlib.sha256(made).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
