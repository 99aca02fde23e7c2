"""A sentence-transformers model folder with random weights: speed does not depend on them, and it needs no download."""

import json
from pathlib import Path

import numpy as np

SHAPES = {"minilm": (6, 384, 12), "base": (12, 768, 12), "large": (24, 1_024, 16), "tiny": (2, 64, 2)}
"""Layers, width, heads: all-MiniLM-L6-v2, BERT base and BERT large; tiny is for trials."""

WINDOW = 256
WORDS = 20_000


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 16 to 300 words, as passages are."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(4.6, 0.6, count), 16, 300).astype(int)
    return [" ".join(f"w{word}" for word in rng.integers(0, WORDS, length)) for length in lengths]


def write_model(folder: Path, shape: str) -> None:
    """Write a BERT of this shape with mean pooling, and a tokenizer that knows the words of `texts`."""
    import torch  # noqa: PLC0415
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast  # noqa: PLC0415

    layers, width, heads = SHAPES[shape]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: place for place, word in enumerate([*special, *(f"w{word}" for word in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        model_max_length=WINDOW,
    ).save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": WINDOW, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def flops(shape: str, lengths: np.ndarray) -> float:
    """Floating-point operations of the matrix products over texts of these lengths in tokens, without padding."""
    layers, width, _ = SHAPES[shape]
    per_token = 2 * 12 * width**2 * layers  # 4 width^2 of attention's projections, 8 of the two feed-forward products
    return float(per_token * lengths.sum() + 4 * layers * width * (lengths.astype(np.float64) ** 2).sum())
