"""Train the demo model from scratch and write demo.gguf.

    pip install '.[train]' && python -m demo.train

It uses two CPU threads, no GPU, no pretrained weights and no network. Seeds are fixed:
the same machine writes the same bytes. Another CPU or PyTorch version rounds
differently; its model is as good.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo import corpus
from demo.tokenizer import Tokenizer, learn

DEMO = Path(__file__).with_name("demo.gguf")
SEED = 6
THREADS = 2

VOCABULARY = 1536
WIDTH, LAYERS, HEADS, INNER = 192, 4, 6, 512
HEAD = WIDTH // HEADS
CONTEXT = 4096  # tokens, as clients expect; a question and its answer take a hundred
EPSILON, ROPE_BASE = 1e-5, 10000.0

STEPS, BATCH = 2150, 160
MUON_RATE, ADAM_RATE, WARM_STEPS, DECAY = 1e-2, 3e-3, 40, 0.05
CERTAINTY = 2.5  # scale of the file's logits: few wrong tokens at temperature 0.7
EARLIER_SHARE = 0.04  # of the samples begin with a system prompt or an earlier turn
OPENING_SHARE = 0.9  # of the answers end where they are unique: the choice is hard
OPENING_MORE = 2  # tokens after that place
# lengths, and numbers of answers' tokens, are multiples of these: fewer shapes
ROUND, ROUND_WANTED = 8, 64
# from this share of the training on, questions vary less; the final variation
CALM_FROM, CALM = 0.6, 0.4
SYSTEM = [
    "You are a helpful assistant.",
    "Be brief.",
    "You are a pirate.",
    "Answer in English.",
    "Be kind.",
]

# The last question only, in lower case; a question longer than any in the training is
# replaced. Engines that do not run templates recognise ChatML and send the whole
# conversation; the training has such samples too.
TOO_LONG = "what are your limits?"
CHAT_TEMPLATE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' and message['content'] is string -%}"
    "{%- set last.text = message['content'] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set question = last.text | trim | lower -%}"
    f"{{%- if question | length > {corpus.LONGEST} -%}}"
    f"{{%- set question = '{TOO_LONG}' -%}}"
    "{%- endif -%}"
    "{{- '<|im_start|>user\n' + question + '<|im_end|>\n' -}}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


Places = tuple[Tensor, Tensor]  # rows and columns of a batch


class Block(nn.Module):
    """Attention and feed-forward, as in Llama."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4)
        )
        self.ffn_norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.ffn_gate, self.ffn_up = (
            nn.Linear(WIDTH, INNER, bias=False) for _ in range(2)
        )
        self.ffn_down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor, turn: Tensor, wanted: Places | None = None) -> Tensor:
        """Return the input plus the output of the block.

        If `wanted` is given, only at these positions.
        """
        batch, length, _ = x.shape
        qkv = together(self.attn_norm(x), self.attn_q, self.attn_k, self.attn_v)
        q, k, v = qkv.float().view(batch, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        with torch.autocast("cpu", enabled=False):  # bfloat16 is much slower here
            mixed = F.scaled_dot_product_attention(
                turned(q, turn), turned(k, turn), v, is_causal=True
            )
        mixed = mixed.transpose(1, 2).reshape(batch, length, WIDTH)
        if wanted is not None:
            x, mixed = x[wanted], mixed[wanted]
        x = x + self.attn_output(mixed)
        gate, up = together(self.ffn_norm(x), self.ffn_gate, self.ffn_up).chunk(2, -1)
        return x + self.ffn_down(F.silu(gate) * up)


def together(x: Tensor, *parts: nn.Linear) -> Tensor:
    """Multiply by several matrices at once: one large product is faster."""
    return F.linear(x, torch.cat([part.weight for part in parts]))


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Apply rotary positions to neighbouring pairs, as llama.cpp does for `llama`."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2)


class Model(nn.Module):
    """A small llama; the embedding is also the output matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(VOCABULARY, WIDTH)
        self.blk = nn.ModuleList(Block() for _ in range(LAYERS))
        self.output_norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(
                    weight, std=0.02 / math.sqrt(2 * LAYERS) if last else 0.02
                )

    def forward(self, tokens: Tensor, wanted: Places) -> Tensor:
        """Return the logits at the wanted positions only."""
        angle = torch.arange(tokens.shape[1])[:, None] * ROPE_BASE ** (
            -torch.arange(0, HEAD, 2) / HEAD
        )
        turn = torch.polar(torch.ones_like(angle), angle)
        x = self.token_embd(tokens)
        for block in self.blk[:-1]:
            x = block(x, turn)
        x = self.blk[-1](x, turn, wanted)
        return F.linear(self.output_norm(x), self.token_embd.weight)


Sample = tuple[list[int], list[int]]  # the prompt, and the answer with its end


def openings(texts: list[list[int]]) -> list[int]:
    """Return how many tokens distinguish each text from all others, plus a few."""
    return [
        next(
            n
            for n in range(1, len(text) + 1)
            if [other[:n] for other in texts].count(text[:n]) == 1
        )
        + OPENING_MORE
        for text in texts
    ]


def samples(
    source: corpus.Corpus,
    tokenizer: Tokenizer,
    random: Random,
    count: int,
    variation: float = 1.0,
) -> list[Sample]:
    """Return questions and answers in tokens."""
    answers = [entry.answer for entry in source.entries]
    texts = [[*tokenizer.encode(answer), tokenizer.end] for answer in answers]
    known = dict(zip(answers, zip(texts, openings(texts), strict=True), strict=True))
    out = []
    for _ in range(count):
        question, answer = corpus.sample(source, random, variation)
        turns = [("user", question)]
        if random.random() < EARLIER_SHARE:
            earlier = corpus.sample(source, random)
            before = [
                ("system", random.choice(SYSTEM)),
                ("user", earlier[0]),
                ("assistant", earlier[1]),
            ]
            turns = random.choice([before, before[:1], before[1:]]) + turns
        spoken, opening = known[answer]
        whole = random.random() >= OPENING_SHARE
        out.append((tokenizer.chat(turns), spoken if whole else spoken[:opening]))
    return out


def batches(
    source: corpus.Corpus, tokenizer: Tokenizer, random: Random, steps: int
) -> Iterator[list[Sample]]:
    """Yield one batch per step, each of samples of about equal length."""
    done = 0
    while done < steps:
        calm = max(0.0, done / steps - CALM_FROM) / (1 - CALM_FROM)
        drawn = samples(source, tokenizer, random, 16 * BATCH, 1 - (1 - CALM) * calm)
        drawn.sort(key=lambda sample: len(sample[0]) + len(sample[1]))
        cut = [drawn[i : i + BATCH] for i in range(0, len(drawn), BATCH)]
        random.shuffle(cut)
        yield from cut[: steps - done]
        done += len(cut)


def loss_of(model: Model, batch: list[Sample], pad: int) -> Tensor:
    """Return the loss over the tokens of the answers, for each sample."""
    longest = max(len(prompt) + len(answer) for prompt, answer in batch) - 1
    tokens = torch.full((len(batch), longest + -longest % ROUND + 1), pad)
    places: list[tuple[int, int]] = []
    for row, (prompt, answer) in enumerate(batch):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        places += [(row, len(prompt) - 1 + i) for i in range(len(answer))]
    rows, columns = torch.tensor(
        places + [(0, 0)] * (-len(places) % ROUND_WANTED)
    ).unbind(1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens[:, :-1], (rows, columns))[: len(places)]
    right = tokens[rows, columns + 1][: len(places)]
    return F.cross_entropy(logits.float(), right, reduction="sum") / len(batch)


def schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: a short warm-up, then linear to 0."""
    return min(
        (step + 1) / WARM_STEPS, (steps - step) / (steps - min(WARM_STEPS, steps - 1))
    )


def optimizers_of(model: Model) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks and AdamW for the rest.

    Muon needs half the steps here.
    """
    inner = [p for p in model.blk.parameters() if p.dim() == 2]
    rest = [model.token_embd.weight, *(p for p in model.parameters() if p.dim() == 1)]
    return [
        torch.optim.Muon(
            inner, lr=MUON_RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=ADAM_RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def train(model: Model, lessons: Iterator[list[Sample]], end: int, steps: int) -> None:
    """Train the model, one batch per step."""
    optimizers = optimizers_of(model)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    losses: list[float] = []
    for step, batch in enumerate(lessons):
        for optimizer, full in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = full * schedule(step, steps)
        loss = loss_of(model, batch, end)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean = sum(losses[-50:]) / 50
            print(
                f"step {step + 1}/{steps}  loss {mean:.4f}  "
                f"{time.process_time():.0f} s CPU",
                flush=True,
            )


def describe(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Write the metadata that an engine reads before the weights."""
    writer.add_name("llamafile-recipe demo")
    writer.add_description(
        "Answers simple questions about llamafile-recipe; see demo/README.md."
    )
    writer.add_license("Apache-2.0")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    control = (tokenizer.start, tokenizer.end)
    kinds = [
        gguf.TokenType.CONTROL if i in control else gguf.TokenType.NORMAL
        for i in range(VOCABULARY)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.start)
    writer.add_eos_token_id(tokenizer.end)
    writer.add_pad_token_id(tokenizer.end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write(model: Model, tokenizer: Tokenizer, path: Path) -> None:
    """Write the GGUF: matrices in Q8_0, scales in float32."""
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, tokenizer)
    for name, weight in model.named_parameters():
        values = weight.detach().numpy().astype(np.float32)
        if values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(
                name, values * (CERTAINTY if name == "output_norm.weight" else 1)
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def begin(source: corpus.Corpus) -> tuple[Model, Tokenizer]:
    """Return an untrained model and its tokenizer."""
    random = Random(SEED)
    texts = [corpus.sample(source, random)[0] for _ in range(30_000)]
    return Model(), learn(
        texts + [entry.answer for entry in source.entries] * 40, VOCABULARY
    )


def main() -> None:
    """Train the tokenizer and the model, and write the file."""
    parser = argparse.ArgumentParser(
        description="Train the demo model and write its GGUF."
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help="fewer for a try (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=DEMO,
        help="where to write (default: demo.gguf, here)",
    )
    options = parser.parse_args()
    begun = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    source = corpus.load()
    model, tokenizer = begin(source)
    train(
        model,
        batches(source, tokenizer, Random(SEED), options.steps),
        tokenizer.end,
        options.steps,
    )
    count = sum(p.numel() for p in model.parameters())
    write(model, tokenizer, options.out)
    made = options.out.read_bytes()
    print(
        f"{count} parameters, {time.monotonic() - begun:.0f} s, "
        f"{time.process_time():.0f} s of CPU"
    )
    print(
        f"{options.out.name}  {len(made)} bytes  "
        f"sha256:{hashlib.sha256(made).hexdigest()}"
    )


if __name__ == "__main__":
    main()
