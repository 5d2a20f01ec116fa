"""Write ``fixtures/wordpiece.json``: what the `tokenizers` library makes of some texts.

Run it with that library installed (``pip install tokenizers``); the tests need the file alone.
"""

import json
from pathlib import Path

ENGLISH = """\
The quick brown foxes weren't jumping: they'd been resting, un-hurried, under 27 unbelievably tall trees.
A language model predicts the next word from the words before it; a masked one looks to both sides.
"Re-tokenisation," she said (not without irony), "costs $3.50 & 100% of your patience..." https://x.org/a_b?c=d#e
In 2017 attention became all you need; in 2018 pre-training and fine-tuning, in 2020 few-shot learning.
Words are cut into pieces: play, player, playing, played, replay, un##split, ##strange, # # ##.
"""
CHINESE = """\
语言模型根据前面的词预测下一个词；掩码语言模型则同时看左右两边。
他说：“注意力机制很重要！”——然后（不无讽刺地）笑了。价格是￥３５．５０，约合５美元。
大语言模型LLM在2023年走进了日常生活，GPT-4和BERT都用Transformer。
繁體中文：機器學習與自然語言處理。生僻字：㐀㐁𠀀𠮷豈更
"""
AWKWARD = [
    "",
    " \t\r\n ",
    "naïve café RÉSUMÉ Ångström ﬁne œuvre",
    "e\u0301 u\u0308ber n\u0303 \u0301x",  # accents apart from their letters, and one alone
    "ΌΔΟΣ όδος İstanbul ıI ẞß ĳ",
    "a\u0000b\u0007c\u200bd\ufeffe\ufffdf\u00adg\u0085h\u001ci",  # control signs and their like
    "one\u00a0two\u2003three\u3000four\u2028five\u2029six",  # all kinds of space
    "안녕하세요 नमस्ते สวัสดี שָׁלוֹם مرحبا",
    "😀😀 👍🏽 ♥ ☃ → ≤ ½ ² € £ ¥ © ® ™ ° § ¶",
    "`~!@#$%^&*()-_=+[{]}\\|;:'\",<.>/? «» „“ … – — · ¿¡ 、。！？《》「」",
    "x" * 100 + " " + "y" * 101 + " " + "play" * 25 + " " + "play" * 26,
    "playqqing qqplay [MASK] is [mask], [CLS][SEP]not[UNK] [PAD",
]
TEXTS = [*ENGLISH.splitlines(), *CHINESE.splitlines(), *AWKWARD]
MODES = {"lower": (True, None), "cased": (False, None), "lower with accents": (True, False)}
PAIRS = [[0, 5], [1, 6], [9, 2], [8, 12]]  # of texts


def main() -> None:
    """Train a vocabulary on the texts, and encode them in every mode."""
    import tokenizers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    def tokenizer(vocabulary, lowercase, strip_accents):
        made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
        made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return made

    trained = tokenizer({"[UNK]": 0}, True, None)
    corpus = [
        ENGLISH,
        CHINESE[: len(CHINESE) // 2],
        "Attention Player BERT naïve café résumé play players playing",
    ]
    trainer = trainers.WordPieceTrainer(
        vocab_size=420, special_tokens=special, limit_alphabet=170, show_progress=False
    )
    trained.train_from_iterator(corpus, trainer)
    ids = trained.get_vocab()
    pieces = sorted(ids, key=ids.__getitem__)
    pieces += [
        piece
        for piece in ("The", "A", "é", "##é", "##ï", "G", "##PT", "B", "##ER", "##T")
        if piece not in ids
    ]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    fixture = {
        "tokenizers": tokenizers.__version__,
        "vocabulary": pieces,
        "texts": TEXTS,
        "modes": {},
        "pairs": [],
    }
    for mode, (lowercase, strip_accents) in MODES.items():
        plain = tokenizer(vocabulary, lowercase, strip_accents)
        encodings = plain.encode_batch(TEXTS, add_special_tokens=False)
        plain.add_special_tokens(special)
        allowed = plain.encode_batch(TEXTS, add_special_tokens=False)
        fixture["modes"][mode] = {
            "lowercase": lowercase,
            "strip_accents": strip_accents,
            "ids": [encoding.ids for encoding in encodings],
            "spans": [encoding.offsets for encoding in encodings],
            "ids with special tokens": [encoding.ids for encoding in allowed],
        }
    pairing = tokenizer(vocabulary, True, None)
    pairing.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    for a, b in PAIRS:
        encoding = pairing.encode(TEXTS[a], TEXTS[b])
        fixture["pairs"].append({"a": a, "b": b, "ids": encoding.ids, "token_type_ids": encoding.type_ids})
    path = Path(__file__).parent / "fixtures" / "wordpiece.json"
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
