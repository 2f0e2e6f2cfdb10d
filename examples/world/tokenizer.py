"""The world's words as a CLIPTokenizer: byte-level BPE in which each word of a caption is one token.

Run: python examples/world/tokenizer.py FOLDER

The free identifiers (`sks`, ...) are one token each too. Any other word falls apart into pieces, down to
single bytes, as in CLIP's own vocabulary: none is unknown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path

import world
from transformers import CLIPTokenizer

# "a photo of a purple and yellow striped robot on a blue background" and the two marks are 15.
MAX_TOKENS = 16
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def caption_words() -> list[str]:
    """Every word that captions, or their writers, use; in a fixed order, once each."""
    text = ["a an the photo picture of and with", *world.CLASSES, *world.COLOURS, *world.PATTERNS, *world.SCENES]
    return list(dict.fromkeys(" ".join([*text, *world.NONSENSE, *world.IDENTIFIERS]).split()))


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in its order (openai/gpt-2, encoder.py)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = range(256, 256 + 256 - len(plain))
    return [chr(code) for code in [*plain, *moved]]


def join(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with each occurrence of the pair made one."""
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges by frequency until every word is one symbol. Words have no repeated overlapping pairs."""
    split = {word: [*word[:-1], word[-1] + WORD_END] for word in words}
    merges = []
    while True:
        pairs = Counter(pair for symbols in split.values() for pair in itertools.pairwise(symbols))
        if not pairs:
            return merges
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        split = {word: join(symbols, best) for word, symbols in split.items()}


def make_tokenizer() -> CLIPTokenizer:
    """The tokenizer, by way of CLIP's two files."""
    merges = learn_merges(caption_words())
    letters = byte_letters()
    symbols = [*letters, *(letter + WORD_END for letter in letters), *(a + b for a, b in merges), START, END]
    vocabulary = {symbol: index for index, symbol in enumerate(dict.fromkeys(symbols))}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        Path(folder, "merges.txt").write_text("\n".join(lines) + "\n")
        marks = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS, **marks)


def encode(tokenizer: CLIPTokenizer, texts: list[str]):
    """Token ids, (len(texts), MAX_TOKENS) int64."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt").input_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    make_tokenizer().save_pretrained(parser.parse_args().folder)


if __name__ == "__main__":
    main()
