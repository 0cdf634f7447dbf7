"""toybox's tokenizer: a small byte-level BPE in CLIPTokenizer's format, built from the word list in this file.

Every word of the list is one token, so "sks robot" has two. Other words are split into pieces down to single bytes, so
any prompt can be tokenized.
"""

from itertools import pairwise
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.figures import KINDS, TOY_COLORS, TOY_NOUNS

MAX_TOKENS = 32
"""Length of a prompt including start, end and padding."""

RARE_WORDS = "sks zwx ohwx olis zqx vxk bnha qmr tzk"
"""Words without a meaning, as tokens for trained subjects."""

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
    """Build the tokenizer and save it to `folder` for `CLIPTokenizer.from_pretrained`."""
    merges = _merges(all_words())
    alphabet = sorted(ByteLevel.alphabet())
    pieces = ["<|startoftext|>", "<|endoftext|>", *alphabet, *(f"{symbol}</w>" for symbol in alphabet)]
    pieces += dict.fromkeys(left + right for left, right in merges)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt, for transformers before version 5
    return tokenizer


def all_words() -> list[str]:
    """All words, short ones first, so that long words are composed of short ones."""
    drawn = [*KINDS, *TOY_COLORS, *TOY_NOUNS, *" ".join(PLACES.values()).split()]
    words = {*drawn, *RARE_WORDS.split(), *COMMON_WORDS.split()}
    return sorted(words, key=lambda word: (len(word), word))


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """The merges, in order, that make each word one piece.

    The merges of a word rank after those of all earlier words, so they never split an earlier word. (The trainer of the
    tokenizers library is not deterministic.)
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = _apply([*word[:-1], f"{word[-1]}</w>"], ranks)
        while len(pieces) > 1:
            ranks.setdefault((pieces[0], pieces[1]), len(ranks))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return list(ranks)


def _apply(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: merge the neighbors with the lowest rank until there are none."""
    while True:
        ranked = [(ranks[pair], place) for place, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not ranked:
            return pieces
        place = min(ranked)[1]
        pieces = [*pieces[:place], pieces[place] + pieces[place + 1], *pieces[place + 2 :]]
