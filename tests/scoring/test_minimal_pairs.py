from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.scoring.blimp import read_blimp
from rankscope.scoring.minimal_pairs import encode_pairs, pair_differences
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.training.config import ModelConfig
from rankscope.training.data.tokenizer import train_bpe
from rankscope.training.model import LanguageModel

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
WORDS = ("<s>", "the", "dog", "dogs", "bark", "barks", "loudly", "a")
PAIRS = (
    ("the dog barks", "the dog bark"),
    ("the dogs bark loudly", "the dogs barks loudly"),
    ("a dog barks", "the dog barks"),
    ("dogs bark", "a dogs bark loudly"),
    ("the dog barks loudly", "the dog barks"),
    ("dog", "dogs bark"),
    ("a dog bark", "a dog bark"),
)
LOG_P: NDArray[np.float64] = np.random.default_rng(5).normal(size=(len(WORDS), len(WORDS)))
LOG_P -= np.log(np.exp(LOG_P).sum(axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def word_encoder(prefix: int | None = 0) -> TextEncoder:
    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [[WORDS.index(word) for word in text.split()] for text in texts]

    return TextEncoder(encode, prefix, "BOS <s>", "words")


def bigram_model(
    log_p: NDArray[np.float64] = LOG_P, *, window: int = 16, seen: list[int] | None = None
) -> TextModel:
    """A model that looks at one word alone; ``seen`` gets the number of tokens scored."""
    table = torch.from_numpy(-log_p)

    def token_losses(tokens: Tensor, counted: Tensor) -> Tensor:
        if seen is not None:
            seen.append(int(counted.sum()))
        return table[tokens[:, :-1], tokens[:, 1:]][counted]

    return TextModel(token_losses, word_encoder(), len(WORDS), window, tokens_at_once=7)


def log_likelihood(sentence: str, *, prefix: str = "<s>") -> float:
    words = [WORDS.index(word) for word in f"{prefix} {sentence}".split()]
    return float(LOG_P[words[:-1], words[1:]].sum())


def test_a_difference_is_that_of_the_sums_over_all_tokens() -> None:
    expected = [log_likelihood(good) - log_likelihood(bad) for good, bad in PAIRS]
    found = pair_differences(bigram_model(), encode_pairs(word_encoder(), PAIRS))
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_exchanging_the_sentences_changes_the_sign() -> None:
    exchanged = [(bad, good) for good, bad in PAIRS]
    found = pair_differences(bigram_model(), encode_pairs(word_encoder(), PAIRS))
    reverse = pair_differences(bigram_model(), encode_pairs(word_encoder(), exchanged))
    assert reverse.tolist() == (-found).tolist()


@pytest.mark.parametrize("prefix", [0, None], ids=["prefix", "no-prefix"])
def test_the_same_tokens_tie_and_cost_nothing(prefix: int | None) -> None:
    seen: list[int] = []
    encoded = encode_pairs(word_encoder(prefix), [("a dog", "a dog"), ("the", "the")])
    assert pair_differences(bigram_model(seen=seen), encoded).tolist() == [0.0, 0.0]
    assert not seen


def test_tokens_that_both_begin_with_are_not_scored() -> None:
    seen: list[int] = []
    pair_differences(bigram_model(seen=seen), encode_pairs(word_encoder(), PAIRS))
    assert sum(seen) == (1 + 1) + (2 + 2) + (3 + 3) + (2 + 4) + (1 + 0) + (1 + 2) + 0


@pytest.mark.parametrize("pair", [PAIRS[4], PAIRS[4][::-1]], ids=["good-longer", "bad-longer"])
def test_of_a_sentence_that_goes_on_the_rest_counts(pair: tuple[str, str]) -> None:
    rest = LOG_P[WORDS.index("barks"), WORDS.index("loudly")]
    [found] = pair_differences(bigram_model(), encode_pairs(word_encoder(), [pair]))
    assert found == pytest.approx(rest if len(pair[0]) > len(pair[1]) else -rest, abs=1e-14)


def test_without_a_prefix_the_first_token_is_not_scored() -> None:
    expected = [
        log_likelihood(good, prefix="") - log_likelihood(bad, prefix="") for good, bad in PAIRS
    ]
    encoded = encode_pairs(word_encoder(None), PAIRS)
    np.testing.assert_allclose(pair_differences(bigram_model(), encoded), expected, atol=1e-13)
    first_only = encode_pairs(word_encoder(None), [("dog", "dogs"), ("", "a")])
    assert pair_differences(bigram_model(), first_only).tolist() == [0.0, 0.0]


def test_no_pairs_have_no_differences() -> None:
    assert pair_differences(bigram_model(), encode_pairs(word_encoder(), [])).shape == (0,)


def test_a_sentence_may_fill_the_window_but_not_exceed_it() -> None:
    encoded = encode_pairs(word_encoder(), PAIRS)  # at most <s> and 4 words, the last no input
    assert len(pair_differences(bigram_model(window=4), encoded)) == len(PAIRS) == len(encoded)
    with pytest.raises(
        RankscopeError, match=r"'the dogs bark loudly' has 4 input tokens, .* takes 3"
    ):
        pair_differences(bigram_model(window=3), encoded)


@pytest.mark.parametrize(
    ("likelihoods", "expected"),
    [
        ((np.nan, 0), np.nan),
        ((-np.inf, -1), -np.inf),
        ((-1, -np.inf), np.inf),
        ((-np.inf,) * 2, np.nan),
    ],
    ids=["nan", "good-impossible", "bad-impossible", "both-impossible"],
)
def test_what_a_broken_model_gives_stays_visible(
    likelihoods: tuple[float, float], expected: float
) -> None:
    log_p = LOG_P.copy()
    log_p[WORDS.index("dog"), [WORDS.index("barks"), WORDS.index("bark")]] = likelihoods
    found = pair_differences(bigram_model(log_p), encode_pairs(word_encoder(), PAIRS[:2]))
    np.testing.assert_equal(found[0], expected)
    assert np.isfinite(found[1])


def test_a_leading_space_is_part_of_the_text() -> None:
    texts: list[str] = []

    def encode(given: Sequence[str]) -> list[list[int]]:
        texts.extend(given)
        return [[1] for _ in given]

    encode_pairs(TextEncoder(encode, 0, "BOS <s>", "none"), [("A.", "B.")], leading_space=True)
    assert texts == [" A.", " B."]


def test_progress_ends_at_one() -> None:
    shares: list[float] = []
    encoded = encode_pairs(word_encoder(), PAIRS)
    pair_differences(bigram_model(), encoded, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("tokens_at_once", [1, 64, 4096])
def test_batches_do_not_matter(tokens_at_once: int) -> None:
    model = LanguageModel(ModelConfig(initializer_range=0.3), len(WORDS)).eval()
    model.initialise(0)
    encoded = encode_pairs(word_encoder(), PAIRS)
    scorer = TextModel(model.token_losses, word_encoder(), len(WORDS), 16, tokens_at_once)
    alone = [
        pair_differences(scorer, encode_pairs(word_encoder(), [pair])).item() for pair in PAIRS
    ]
    np.testing.assert_allclose(pair_differences(scorer, encoded), alone, atol=1e-5)


Transformers = tuple[TextModel, Callable[[str], float]]


def transformers_model(sentences: Sequence[str]) -> Transformers:
    """A small random model of transformers, and its log-likelihood of a sentence, plainly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_bpe(sentences, 400)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    single = LlamaForCausalLM(config)
    single.eval()  # type: ignore[no-untyped-call]
    double = LlamaForCausalLM(config)
    double.load_state_dict(single.state_dict())
    double.double().eval()

    def token_losses(tokens: Tensor, counted: Tensor) -> Tensor:
        logits = single(tokens[:, :-1]).logits[counted]
        return torch.nn.functional.cross_entropy(logits, tokens[:, 1:][counted], reduction="none")

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [tokenizer.encode(text).ids for text in texts]

    def plain(sentence: str) -> float:
        ids = torch.tensor([[0, *tokenizer.encode(sentence).ids]])
        with torch.inference_mode():
            log_p = double(ids).logits[0].log_softmax(-1)
        return sum(log_p[i, ids[0, i + 1]].item() for i in range(ids.shape[1] - 1))

    encoder = TextEncoder(encode, 0, "EOS <|endoftext|>", "bpe")
    return TextModel(token_losses, encoder, 400, 128, tokens_at_once=512), plain


@pytest.mark.parametrize("leading_space", [False, True], ids=["as-it-is", "leading-space"])
@pytest.mark.slow
def test_choices_on_the_published_pairs_are_those_of_plain_sums(leading_space: bool) -> None:
    path = DATA / "BLiMP.zip"
    if not path.exists():
        pytest.skip("needs the published pairs")
    pairs = read_blimp(path, pairs=2).pairs
    model, plain = transformers_model([sentence for pair in pairs for sentence in pair])
    space = " " if leading_space else ""
    expected = [plain(space + good) - plain(space + bad) for good, bad in pairs]
    encoded = encode_pairs(model.encoder, pairs, leading_space=leading_space)
    found = pair_differences(model, encoded)
    np.testing.assert_array_equal(np.sign(found), np.sign(expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)
