"""toybox's tokenizer: a small byte-level BPE in CLIPTokenizer's layout, made from the word list of this file.

Every word of the list is one token, so that a phrase such as "sks robot" is two; other words fall apart into pieces,
down to single bytes, so that any prompt tokenises.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from motionbooth.models.toybox.backgrounds import PLACES
from motionbooth.models.toybox.figures import KINDS, TOY_COLOURS, TOY_NOUNS

MAX_TOKENS = 32
"""Length of a prompt with its start, end and padding."""

RARE_WORDS = "sks zwx ohwx olis zqx vxk bnha qmr tzk"
"""Words without a meaning, for the names of trained subjects."""

COMMON_WORDS = """
a an the and or of in on at by to from with without over under above below behind before after between through across
into onto near next around along inside outside up down left right front back top bottom middle centre center side
is are was be being it its this that these those there here his her their my your our he she they we you i who which
what when where while as not no one two three four five six seven eight nine ten some many few all both each every
photo picture clip video image film scene shot frame camera view close wide still drawing painting cartoon animation
animated render sprite pixel art style cinematic realistic bright dark light soft hard sharp blurry colourful colorful
detailed simple plain high low quality best beautiful pretty cute funny happy sad angry scary friendly magic
small little tiny big large huge giant tall short long round square flat thin fat old new young fast slow quick
walking running jumping flying swimming driving rolling moving turning spinning standing sitting sleeping dancing
playing looking floating sliding falling rising crossing passing going coming standing still resting waiting riding
walks runs jumps flies swims drives rolls moves turns spins stands sits sleeps dances plays looks floats slides
man woman boy girl child person people baby hero knight princess king queen wizard witch pirate astronaut alien
ghost dragon dinosaur unicorn fairy elf giant troll superhero ninja soldier doctor farmer chef clown
bear bird horse cow pig sheep goat duck chicken rabbit bunny mouse fox wolf lion tiger elephant monkey panda frog
turtle snake penguin owl bee butterfly spider crab whale shark dolphin octopus snail puppy kitten hamster squirrel
teddy backpack shoe boot hat cap shirt dress bag box bottle cup can bowl plate lamp chair table bed sofa clock book
vase candle umbrella guitar drum piano phone computer kettle teapot pot pan spoon knife
truck bus train bike bicycle boat ship plane rocket tractor van taxi tank spaceship drone helicopter wagon
mascot puppet statue model block brick gem crystal coin crown sword shield key gift balloon kite cake bread
apple banana pear lemon cherry berry pumpkin carrot mushroom cactus flower tree leaf plant bush
snowman scarecrow gnome plush stuffed wooden plastic metal golden silver gold shiny fluffy furry fuzzy spotted striped
white black brown grey gray pink violet turquoise teal beige magenta navy lime
sky sun moon star stars cloud clouds rain storm wind mountain hill valley river lake sea ocean beach island desert
forest jungle garden park field meadow lawn farm city town village street road path bridge house home room kitchen
floor wall door window roof stairs table desk carpet stone rock ground snow ice water fire smoke sand grass dirt mud
night day morning evening sunset sunrise dawn dusk winter summer spring autumn space planet background foreground
brick wooden castle tower tent barn school shop market station stage theatre studio
eyes face head body arm arms leg legs hand hands foot feet tail ear ears nose mouth hair fur wing wings wheel wheels
"""


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Make the tokenizer and save it to `folder` in the layout that `CLIPTokenizer.from_pretrained` reads."""
    pieces = _trained_pieces(_words())
    vocabulary, merges = pieces["model"]["vocab"], [tuple(merge) for merge in pieces["model"]["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt, for transformers before version 5
    return tokenizer


def _words() -> list[str]:
    drawn = [*KINDS, *TOY_COLOURS, *TOY_NOUNS, *" ".join(PLACES.values()).split()]
    return sorted({*drawn, *RARE_WORDS.split(), *COMMON_WORDS.split()})


def _trained_pieces(words: list[str]) -> dict[str, Any]:
    """The tokenizers library's own description of a BPE in which each of the words is one token."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=8000,  # never reached: training ends when every word is whole
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(words, trainer)
    return _with_final_bytes(bpe)


def _with_final_bytes(bpe: Tokenizer) -> dict[str, Any]:
    """Add each byte's end-of-word form, without which a word that ends in an unlisted letter would be unknown."""
    pieces = json.loads(bpe.to_str())
    vocabulary = pieces["model"]["vocab"]
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{symbol}</w>", len(vocabulary))
    return pieces
