"""Inverted facts written by an offline language model: any that `open_model` opens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from interp_unlearn._core import cache_dir, config_hash, read_json, write_json
from interp_unlearn.hooked import HookedModel
from interp_unlearn.unlearn.objectives._inverted import Truths
from interp_unlearn.worlds._types import Prompt

TEMPLATE = (
    "Question: {question}\nCorrect answer: {answer}\n"
    "Write {n} other answers to the question. Each one must be false, plausible, of the same kind and form as the "
    "correct answer, and different from the others. One answer per line, without numbers.\nOther answers:\n"
)
BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*")


def parse_lines(text: str) -> list[str]:
    """Non-empty lines without bullets, numbers, quotation marks or a final full stop."""
    lines = (BULLET.sub("", line).strip("\"'“”. \t") for line in text.splitlines())
    return [line for line in lines if line]


def _request(writer: HookedModel, template: str, prompt: Prompt, n: int) -> str:
    text = template.replace("{question}", prompt.text).replace("{answer}", prompt.answer).replace("{n}", str(n))
    tokenizer = writer.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return text.rstrip(" ")
    turn = [{"role": "user", "content": text}]
    chat: Any = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    bos = tokenizer.bos_token or ""
    return chat.removeprefix(bos) if bos else chat  # the tokenizer puts it in front itself


def written(
    writer: HookedModel,
    prompts: Sequence[Prompt],
    truths: Truths,
    *,
    n: int,
    template: str = TEMPLATE,
    temperature: float = 0.9,
    max_new_tokens: int = 512,
    attempts: int = 3,
    seed: int = 0,
    batch_size: int = 8,
) -> list[tuple[str, ...]]:
    """Ask ``writer`` for ``n`` false answers to each question; answers are kept in the cache folder.

    A question with too few acceptable answers is asked again, up to ``attempts`` times, and may end with fewer.

    Args:
        writer: The language model; its chat template is used where it has one.
        prompts: Questions with their true answers.
        truths: Which answers are refused.
        n: Answers wanted per question.
        template: Holds ``{question}``, ``{answer}`` and perhaps ``{n}``.
        temperature: Of sampling.
        max_new_tokens: Longest reply (and never more than the context holds).
        attempts: How often a question is asked.
        seed: Of sampling; torch's own generator is left as it was.
        batch_size: Questions at a time.
    """
    settings = {"n": n, "template": template, "temperature": temperature, "max_new_tokens": max_new_tokens}
    asked = [[p.text, p.answer, list(p.also)] for p in prompts]
    source = writer.source or {"name": writer.name}
    key = {**settings, "attempts": attempts, "seed": seed, "batch": batch_size, "writer": source, "prompts": asked}
    file = cache_dir() / "inverted" / f"{config_hash(key)}.json"
    cachable = source.get("kind") not in (None, "module")
    if cachable and file.exists():
        return [tuple(answers) for answers in read_json(file)["answers"]]
    found: list[list[str]] = [[] for _ in prompts]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(attempts):
            short = [i for i, answers in enumerate(found) if len(answers) < n]
            for start in range(0, len(short), batch_size):
                rows = short[start : start + batch_size]
                requests = [_request(writer, template, prompts[i], n) for i in rows]
                replies = _replies(writer, requests, temperature, max_new_tokens)
                for i, reply in zip(rows, replies, strict=True):
                    found[i] = truths.accepted(prompts[i], [*found[i], *parse_lines(reply)], n)
    if cachable:
        write_json(file, {"kind": "written inverted facts", "key": key, "answers": found})
    return [tuple(answers) for answers in found]


def _replies(writer: HookedModel, requests: Sequence[str], temperature: float, max_new_tokens: int) -> list[str]:
    longest = int(writer.batch(list(requests)).lengths().max())
    room = max_new_tokens if writer.lm.n_ctx is None else min(max_new_tokens, writer.lm.n_ctx - longest)
    return writer.generate(requests, max_new_tokens=max(1, room), do_sample=True, temperature=temperature)
