# SPDX-License-Identifier: Apache-2.0
"""A small BPE tokenizer, made from a word list and, for a trained model, from its texts.

Random weights generate any token after any other. So every token except the special ones is plain
ASCII text: then each continuation decodes to clean text, and decoding token by token gives the
same text as decoding at once. Characters outside become `<unk>`.
"""

import string
from collections.abc import Iterable, Iterator
from itertools import chain

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

UNKNOWN_TOKEN = "<unk>"
END_TOKEN = "<eos>"
SPECIAL_TOKENS = (UNKNOWN_TOKEN, END_TOKEN)
VOCABULARY_SIZE = 512

ALPHABET = "\n" + " " + string.ascii_letters + string.digits + string.punctuation

# A word takes its leading space along; a digit stands alone, as in most current tokenizers.
PIECES = r"[0-9]| ?[A-Za-z]+| ?[^A-Za-z0-9\s]+|\n+|\s"

# The most frequent first: what everyday English and arithmetic word problems are made of.
WORDS = """
the of and to a in is he many how for has she each if it have on are per The his How her was they
with day much at from dollars that cost will there total He one more number She be than by two
time so all buys hours as money What first week If left does every an them were their or had some
out what do then off you three half people twice price another up who get take sells sold after
only days bought make next spend pay when minutes year old costs him which books eggs gave into
least four most less times can hour earn sell go given back needs children miles friends long same
students eat would years weeks month made makes apples box boxes pieces pounds Each There five six
seven eight nine ten cups water buy read respectively remaining rest second third last amount full
average speed school percent sister brother mother friend family store car house home work class
room bag bags table tree trees cake cookies pizza pages paper toys game games cards find works
spent save saved saves pays paid sale bill tickets ticket took takes give gives gets got went goes
wants want need started start starts During After This They It In On For At So We To And away over
before between during both other new large small high part fruit oranges milk bread food dinner
lunch flowers animals dogs cats chickens feet foot inches inch gallons ounces meters bottle
bottles cents dozen added add plus minus divided equal equals sum difference altogether rate worth
already also about around like not no any its own kids boys girls men women person player team
points score shirts shoes dress pair run runs walk walks drive drives ride train bus plane boat
red blue green yellow white black morning night afternoon evening today yesterday Monday Tuesday
Friday Saturday Sunday John Mary James Tom Sam Mark Maria Lisa Anna Jack Jane Emma Mike answer
Question Answer Then Since Therefore profit discount tax income salary job weekly daily monthly
through under until while because where together collected planted received bring bringing using
making doing going selling buying reading giving taking having being working eating playing fewer
greater better hundred thousand twenty thirty forty fifty
"""

# Pieces of worked arithmetic, by how often they stand where the first word stands 1600 times.
SYMBOLS = {
    1600: (">>",),
    900: (" =", " $"),
    700: (" <<", "####", "Question", "Answer"),
    400: ("=<<", "$<<", " +", " *", "\n\n"),
    250: ("=$<<", " -", " x", " /"),
}


def _training_words() -> Iterator[str]:
    """Repeat each word as often as its rank in a language says (Zipf's law)."""
    for rank, word in enumerate(WORDS.split()):
        yield from [f" {word}"] * (20000 // (rank + 12))
    for frequency, symbols in SYMBOLS.items():
        yield from symbols * frequency


def build_tokenizer(
    size: int = VOCABULARY_SIZE, texts: Iterable[str] = (), pieces: str = PIECES
) -> Tokenizer:
    """Make the tokenizer; equal at each call.

    Args:
        size: Tokens at most.
        texts: More to learn tokens from than the word list.
        pieces: What no token goes beyond, as a regular expression.

    Returns:
        The special tokens have the first numbers. No token is put in front of a text.
    """
    tokenizer = Tokenizer(BPE(unk_token=UNKNOWN_TOKEN, fuse_unk=True))
    tokenizer.pre_tokenizer = Split(Regex(pieces), "isolated")
    tokenizer.decoder = Fuse()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=list(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(_training_words(), texts), trainer)
    return tokenizer
