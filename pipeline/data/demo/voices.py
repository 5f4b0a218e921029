"""The synthetic speakers of the demo, and their sentences.

A voice is a variant of espeak-ng (formants and glottal wave) with an accent, a pitch, a pitch range and a rate. The
three lists share no variant, and near twins (`iven` to `iven4`, `f1` and `f4`, those that only alter the Klatt
synthesiser) are in one list, so that a test voice is a new voice. Pitches follow a golden-ratio sequence in each list,
so that similar neighbours get very different pitches.

The lists omit variants that do not sound like a person (robots, whispers, croaks, demons) and near copies of others.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Voice:
    """A synthetic speaker.

    Args:
        variant: file name in espeak-ng's `voices/!v`.
        accent: espeak-ng's name of an English accent.
        pitch: 0 to 99; 50 is the default of the variant (0 is 0.7 times, 90 is 1.5 times as high).
        range: pitch range, 0 to 99; 50 is the default of the variant.
        rate: words per minute.
    """

    variant: str
    accent: str
    pitch: int
    range: int
    rate: int

    @property
    def name(self) -> str:
        """The folder name of the voice, such as `f3_en-us`: safe in a path, unique among all voices."""
        return f"{self.variant.replace(' ', '-')}_{self.accent}"

    @property
    def espeak(self) -> str:
        """The name of the voice in espeak-ng, such as `en-us+f3`."""
        return f"{self.accent}+{self.variant}"


# Speakers to train on.
TRAIN = (
    Voice("fast", "en-us", 62, 68, 172),
    Voice("grandpa", "en-029", 29, 57, 152),
    Voice("john", "en-gb-x-gbclan", 82, 46, 178),
    Voice("pedro", "en-gb-scotland", 49, 35, 160),
    Voice("Mr serious", "en-us-nyc", 16, 69, 140),
    Voice("Tweaky", "en-gb-x-gbcwmd", 70, 58, 166),
    Voice("Mike", "en-gb-x-rp", 36, 47, 146),
    Voice("m1", "en", 90, 36, 172),
    Voice("m2", "en-gb-scotland", 57, 70, 152),
    Voice("m3", "en-us-nyc", 24, 59, 178),
    Voice("m4", "en-gb-x-gbcwmd", 77, 48, 158),
    Voice("m5", "en-gb-x-rp", 44, 37, 140),
    Voice("m6", "en", 11, 71, 164),
    Voice("m7", "en-us", 65, 60, 146),
    Voice("max", "en-029", 32, 49, 170),
    Voice("RicishayMax", "en-gb-x-gbclan", 85, 38, 152),
    Voice("RicishayMax2", "en-gb-x-rp", 52, 72, 178),
    Voice("klatt", "en", 19, 61, 158),
    Voice("klatt2", "en-us", 73, 50, 140),
    Voice("klatt3", "en-029", 39, 39, 164),
    Voice("klatt4", "en-gb-x-gbclan", 93, 73, 146),
    Voice("klatt5", "en-gb-scotland", 60, 62, 170),
    Voice("klatt6", "en-us-nyc", 27, 51, 152),
    Voice("adam", "en-gb-x-gbcwmd", 80, 40, 176),
    Voice("benjamin", "en-029", 47, 74, 158),
    Voice("edward", "en-gb-x-gbclan", 14, 63, 138),
    Voice("edward2", "en-gb-scotland", 68, 52, 164),
    Voice("mike2", "en-us-nyc", 35, 41, 144),
    Voice("Diogo", "en-gb-x-gbcwmd", 88, 75, 170),
    Voice("Henrique", "en-gb-x-rp", 55, 64, 150),
    Voice("Hugo", "en", 22, 53, 176),
    Voice("michel", "en-us", 76, 42, 158),
    Voice("miguel", "en-us-nyc", 42, 30, 138),
    Voice("iven", "en-gb-x-gbcwmd", 9, 64, 164),
    Voice("iven2", "en-gb-x-rp", 63, 53, 144),
    Voice("iven3", "en", 30, 42, 170),
    Voice("iven4", "en-us", 83, 31, 150),
    Voice("Gene", "en-029", 50, 65, 176),
    Voice("Gene2", "en-gb-x-gbclan", 17, 54, 156),
    Voice("Mario", "en-gb-scotland", 71, 43, 182),
    Voice("Michael", "en", 38, 32, 162),
    Voice("quincy", "en-us", 93, 66, 144),
    Voice("rob", "en-029", 58, 55, 168),
    Voice("robert", "en-gb-x-gbclan", 25, 44, 150),
    Voice("Andy", "en-gb-scotland", 79, 33, 176),
    Voice("AnxiousAndy", "en-us-nyc", 45, 67, 156),
    Voice("Lee", "en-gb-x-gbcwmd", 12, 56, 182),
    Voice("Alicia", "en-gb-x-rp", 59, 45, 162),
    Voice("belinda", "en-gb-x-gbclan", 30, 34, 144),
    Voice("linda", "en-gb-scotland", 77, 68, 168),
    Voice("f2", "en-us-nyc", 48, 57, 150),
    Voice("f5", "en-gb-x-gbcwmd", 19, 46, 174),
    Voice("steph", "en-gb-x-rp", 66, 35, 156),
    Voice("steph2", "en", 37, 69, 180),
    Voice("steph3", "en-us", 84, 58, 162),
    Voice("zac", "en-029", 5, 47, 142),
)

# Speakers of the trials.
TEST = (
    Voice("Alex", "en-us", 88, 68, 172),
    Voice("Denis", "en-029", 55, 57, 152),
    Voice("Jacky", "en-gb-x-gbclan", 21, 46, 178),
    Voice("Nguyen", "en-gb-scotland", 75, 35, 160),
    Voice("Reed", "en-us-nyc", 42, 69, 140),
    Voice("announcer", "en-gb-x-gbcwmd", 42, 58, 166),
    Voice("antonio", "en-gb-x-rp", 62, 47, 146),
    Voice("david", "en", 55, 36, 172),
    Voice("ed", "en-gb-scotland", 83, 70, 152),
    Voice("gustave", "en-us-nyc", 50, 59, 178),
    Voice("kaukovalta", "en-gb-x-gbcwmd", 17, 48, 158),
    Voice("m8", "en-gb-x-rp", 70, 37, 140),
    Voice("marcelo", "en", 37, 71, 164),
    Voice("norbert", "en-us", 91, 60, 146),
    Voice("pablo", "en-029", 58, 49, 170),
    Voice("paul", "en-gb-x-gbclan", 52, 38, 152),
    Voice("travis", "en-gb-x-rp", 78, 72, 178),
    Voice("Andrea", "en", 41, 61, 158),
    Voice("anika", "en-us", 11, 50, 140),
    Voice("f1", "en-029", 59, 39, 164),
    Voice("f3", "en-gb-x-gbclan", 29, 73, 146),
    Voice("f4", "en-gb-scotland", 77, 62, 170),
    Voice("grandma", "en-us-nyc", 48, 51, 152),
    Voice("shelby", "en-gb-x-gbcwmd", 18, 40, 176),
)

# Background talkers of the test noise; they are in no trial.
BABBLE = (
    Voice("Marco", "en-us", 27, 68, 172),
    Voice("Storm", "en-029", 86, 57, 152),
    Voice("boris", "en-gb-x-gbclan", 48, 46, 178),
    Voice("ian", "en-gb-scotland", 46, 35, 160),
    Voice("sandro", "en-us-nyc", 68, 69, 140),
    Voice("victor", "en-gb-x-gbcwmd", 35, 58, 166),
    Voice("Annie", "en-gb-x-rp", 79, 47, 146),
    Voice("aunty", "en", 50, 36, 172),
)

SENTENCES = (
    "The old harbour is quiet once the fishing boats have gone out.",
    "She put a jar of honey and two spoons on the kitchen table.",
    "We took the early train because the road was covered with ice.",
    "Nobody knows why the garden gate was left open last night.",
    "A tall man with a blue umbrella walked slowly past the bakery.",
    "They painted the front door green and the shutters bright yellow.",
    "My cousin fixes bicycles in a small workshop behind the church.",
    "Please write your name and address at the top of each page.",
    "The river froze so hard that children could skate to the island.",
    "He bought fresh bread, goat cheese and a pound of black olives.",
    "Thunder rolled over the valley just before the first heavy drops fell.",
    "Our teacher told us a strange story about a fox and a crow.",
    "The museum opens at nine and closes shortly after five.",
    "Grandmother keeps her letters in a wooden box under the bed.",
    "Could you show me the shortest way to the central station?",
    "It takes about three hours to drive from the coast to the lake.",
    "The orchestra played a slow waltz while the guests were dancing.",
    "A grey cat jumped from the wall and vanished in the long grass.",
    "We should measure the window again before we order the glass.",
    "In spring the whole hill turns purple with wild flowers.",
    "The doctor asked him to breathe deeply and to count to ten.",
    "She has lived in four countries and speaks their languages well.",
    "Put the heavy books on the lower shelf and the maps above.",
    "A cold wind blew through the cracks of the old farmhouse.",
    "The judge listened to both sides without a single question.",
    "Five young swans followed their mother across the pond.",
    "He usually drinks a cup of coffee before he reads the newspaper.",
    "The bridge was closed for repairs from June until September.",
    "You will find the key beneath the third flower pot on the left.",
    "Their team scored twice during the final minutes of the match.",
    "Smoke from the chimney drifted gently over the frozen fields.",
    "I would rather walk home than wait another hour for the bus.",
    "The tailor chose a thick thread that matched the cloth exactly.",
    "Every Thursday the market fills with voices, colours and smells.",
    "A loose cable under the desk had caused all of the trouble.",
    "The children built a castle of sand with towers and a moat.",
    "She whispered the answer, but everyone in the room heard it.",
    "His brother repairs watches and never arrives late for dinner.",
    "The ship changed its course when the lighthouse came into view.",
    "Add a pinch of salt, stir the soup and let it cool down.",
    "Few people remember the village that stood beside this reservoir.",
    "The pilot announced a short delay because of fog on the runway.",
    "Both sisters joined the choir as soon as they were old enough.",
    "He folded the map, checked his watch and started to climb.",
    "The library lends games and music as well as books.",
    "Yellow leaves covered the path between the school and the park.",
    "We heard a dog bark twice somewhere beyond the orchard.",
    "The jury gave the first prize to a very young violin player.",
)


def choose_sentences(index: int, count: int) -> tuple[str, ...]:
    """Choose `count` different sentences for the voice at `index` of its list; neighbours share few.

    Args:
        index: position of the voice in its list.
        count: number of sentences, at most `len(SENTENCES)`.
    """
    # 11 and 7 share no factor with 48, so the starts cover all sentences, and no voice repeats one.
    return tuple(SENTENCES[(11 * index + 7 * turn) % len(SENTENCES)] for turn in range(count))
