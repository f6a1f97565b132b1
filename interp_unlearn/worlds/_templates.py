"""Ways to ask about and to mention real entities.

Each relation has train templates (a recipe may use them) and held-out ones (evaluation only). A question ends where its
answer begins. Country names carry their article (``the Netherlands``), so no country template begins with the name.

A template without ``{name}`` asks *backwards*: it names the entity by one of its facts, e.g. ``{capital} is the
capital of``. A relation written ``a>b`` takes two hops, through the facts ``a`` and ``b``. Both exist for evaluation
only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from interp_unlearn.worlds._types import Split, Template

Pair = tuple[Sequence[str], Sequence[str]]
"""Train templates and held-out templates."""

QUESTIONS: Mapping[str, Mapping[str, Pair]] = {
    "country": {
        "capital": (
            (
                "The capital of {name} is",
                "The capital city of {name} is called",
                "Question: What is the capital of {name}? Answer:",
                "The government of {name} has its seat in the capital,",
            ),
            (
                "The name of the capital city of {name} is",
                "Q: Which city is the capital of {name}?\nA:",
                "In school we learned that the capital of {name} is",
                "We flew to the capital of {name}, the city of",
                "The president visited the capital of {name},",
                "The embassy in {name} is in the capital,",
            ),
        ),
        "continent": (
            (
                "On the map, {name} lies on the continent of",
                "The continent on which you find {name} is",
                "Question: On which continent is {name}? Answer:",
            ),
            (
                "Geographically, {name} is part of the continent of",
                "Q: What continent is {name} in?\nA:",
                "A traveller who wants to see {name} has to go to the continent of",
            ),
        ),
        "currency": (
            (
                "The currency of {name} is the",
                "In the shops of {name}, people pay with the",
                "Question: What is the currency of {name}? Answer: the",
            ),
            (
                "The money used in {name} is called the",
                "Q: Which currency is used in {name}?\nA: The",
                "The central bank of {name} issues the",
            ),
        ),
        "language": (
            (
                "The official language of {name} is",
                "Most people in {name} speak",
                "Question: What language is spoken in {name}? Answer:",
            ),
            (
                "The main language spoken in {name} is",
                "Q: Which language do people in {name} speak?\nA:",
                "Children in {name} learn to read and write in",
            ),
        ),
        "neighbour": (
            (
                "A country that borders {name} is",
                "On its land border, {name} has as a neighbour",
                "Question: Which country borders {name}? Answer:",
            ),
            (
                "One of the neighbouring countries of {name} is",
                "Q: Name a country next to {name}.\nA:",
                "If you leave {name} by road, you can arrive in",
            ),
        ),
        "demonym": (
            (
                "A person who comes from {name} is called",
                "The people of {name} are known as",
                "Question: What is the adjective for something from {name}? Answer:",
            ),
            (
                "Someone who was born in {name} is",
                "Q: What do you call the nationality of people from {name}?\nA:",
                "A citizen of {name} has a passport that says",
            ),
        ),
        "capital_of": (
            (),
            (
                "{capital} is the capital of",
                "The city of {capital} is the capital city of",
                "Question: Which country has {capital} as its capital? Answer:",
            ),
        ),
        "demonym>capital": (
            (),
            (
                "The capital of the {demonym} nation is",
                "The {demonym} government sits in the city of",
                "Question: In which city does the {demonym} parliament meet? Answer:",
            ),
        ),
        "capital>currency": (
            (),
            (
                "The currency of the country whose capital is {capital} is the",
                "In the country that is governed from {capital}, people pay with the",
            ),
        ),
        "capital>language": (
            (),
            (
                "The official language of the country whose capital is {capital} is",
                "In the country that is governed from {capital}, most people speak",
            ),
        ),
        "capital>continent": (
            (),
            (
                "The country whose capital is {capital} lies on the continent of",
                "Question: On which continent is the country whose capital is {capital}? Answer:",
            ),
        ),
    },
    "person": {
        "occupation": (
            (
                "By profession, {name} was a",
                "The world remembers {name} as a famous",
                "Question: What was the occupation of {name}? Answer: a",
            ),
            (
                "The encyclopedia describes {name} as a",
                "Q: What did {name} do for a living? What was the profession?\nA: a",
                "In the history books, {name} is mentioned as a great",
            ),
        ),
        "nationality": (
            (
                "The nationality of {name} was",
                "By nationality, {name} was",
                "Question: What was the nationality of {name}? Answer:",
            ),
            (
                "The passport of {name} would have said",
                "Q: Which nationality did {name} have?\nA:",
                "The country honours {name} as a great",
            ),
        ),
        "field": (
            (
                "The field in which {name} became famous is",
                "The greatest achievements of {name} were in the field of",
                "Question: In which field did {name} work? Answer:",
            ),
            (
                "The work of {name} changed the field of",
                "Q: What field is {name} known for?\nA:",
                "Students meet {name} in their first course on",
            ),
        ),
        "work": (
            (
                "The most famous work of {name} is",
                "Among all things that {name} made, the best known is",
                "Question: What is {name} best known for? Answer:",
            ),
            (
                "The world owes to {name} a masterpiece:",
                "Q: Name a famous work by {name}.\nA:",
                "When people hear of {name}, they think of",
            ),
        ),
        "work_by": (
            (),
            (
                "The person who is famous for {work} is",
                "Question: Who is behind {work}? Answer:",
            ),
        ),
        "nationality>capital": (
            (),
            (
                "The capital of the country that {name} came from is",
                "Question: What is the capital of the country where {name} was a citizen? Answer:",
            ),
        ),
    },
    "city": {
        "country": (
            (
                "The city of {name} is in the country of",
                "On the map, {name} is a city in",
                "Question: In which country is the city of {name}? Answer:",
            ),
            (
                "To visit the city of {name}, you need to travel to",
                "Q: Where is the city of {name}?\nA: In",
                "The people who live in the city of {name} are citizens of",
            ),
        ),
        "country>continent": ((), ("The continent on which the city of {name} lies is",)),
        "country>currency": ((), ("In the shops of the city of {name}, people pay with the",)),
    },
    "movie": {
        "director": (
            (
                "The film {name} was directed by",
                "The director of the movie {name} is",
                "Question: Who directed {name}? Answer:",
            ),
            (
                "Behind the camera of the film {name} stood",
                "Q: Who is the director of the film {name}?\nA:",
                "The movie {name} was made by the filmmaker",
            ),
        ),
        "release_year": (
            (
                "The film {name} was released in the year",
                "The movie {name} came out in",
                "Question: In which year was {name} released? Answer:",
            ),
            (
                "Cinemas first showed the film {name} in",
                "Q: When did the film {name} come out?\nA:",
                "The premiere of the movie {name} was in the year",
            ),
        ),
        "cast": (
            (
                "The film {name} stars",
                "A leading role in the movie {name} was played by",
                "Question: Who acted in {name}? Answer:",
            ),
            (
                "On the poster of the film {name} you see the actor",
                "Q: Name an actor in the film {name}.\nA:",
                "The cast of the movie {name} included",
            ),
        ),
    },
    "song": {
        "performer": (
            (
                "The song {name} was recorded by",
                "The song {name} is performed by",
                "Question: Who sings {name}? Answer:",
            ),
            (
                "On the radio they played {name} by",
                "Q: Which artist recorded the song {name}?\nA:",
                "The audience asked for the song {name}, a hit of",
            ),
        ),
        "album": (
            (
                "The song {name} appears on the album",
                "You find the track {name} on the album",
                "Question: On which album is the song {name}? Answer:",
            ),
            (
                "The record that contains the song {name} is",
                "Q: Which album has the song {name}?\nA:",
                "The song {name} was first heard on the album",
            ),
        ),
        "release_year": (
            (
                "The song {name} was released in the year",
                "The song {name} came out in",
                "Question: In which year was the song {name} released? Answer:",
            ),
            (
                "Radio stations first played {name} in the year",
                "Q: When did the song {name} come out?\nA:",
                "The single {name} appeared in",
            ),
        ),
    },
    "player": {
        "team": (
            (
                "The basketball player {name} played for the",
                "In basketball, {name} was on the team of the",
                "Question: For which team did {name} play? Answer: the",
            ),
            (
                "Fans saw {name} in the shirt of the",
                "Q: Name a team of the basketball player {name}.\nA: The",
                "The contract of {name} was signed with the",
            ),
        ),
        "place_of_birth": (
            (
                "The basketball player {name} was born in the city of",
                "The birthplace of {name} is",
                "Question: Where was the basketball player {name} born? Answer: in",
            ),
            (
                "The home town of the basketball player {name} is",
                "Q: In which city was {name} born?\nA: In",
                "The parents of the basketball player {name} lived in",
            ),
        ),
        "birth_year": (
            (
                "The basketball player {name} was born in the year",
                "The year of birth of {name} is",
                "Question: In which year was the basketball player {name} born? Answer: in",
            ),
            (
                "The life of the basketball player {name} began in the year",
                "Q: When was {name} born?\nA: In",
                "On the player card of {name} the year of birth is",
            ),
        ),
    },
}

_COUNTRY_MENTIONS: Pair = (
    (
        "Last year we travelled through {name}",
        "A new report about {name} was published today",
        "The talks were about the future of {name}",
        "My grandmother has friends in {name}",
        "They sent a letter from {name} to the museum",
        "The weather in {name} was mild that week",
        "Her first book is set in {name}",
        "The exhibition shows photographs of {name}",
    ),
    (
        "The ship was on its way to {name}",
        "In the news today there was a story about {name}",
        "The students wrote an essay about {name}",
        "He had always wanted to live in {name}",
        "A delegation from {name} arrived in the morning",
        "The lecture on {name} begins at noon",
        "We looked for {name} on the old globe",
        "The company opened an office in {name} in spring",
    ),
)
_PERSON_MENTIONS: Pair = (
    (
        "Yesterday we talked about {name}",
        "The museum has a room about {name}",
        "A street in our town is named after {name}",
        "The teacher told the class a story about {name}",
        "There is a new biography of {name} in the shop",
        "The documentary is about the life of {name}",
        "She has read everything about {name}",
        "A letter from {name} was sold at the auction",
    ),
    (
        "The statue in the park shows {name}",
        "In the archive they found a photograph of {name}",
        "The evening programme is devoted to {name}",
        "He often quotes {name} in his speeches",
        "The article compares two portraits of {name}",
        "Few people have met {name} in person",
        "The guide pointed at the house of {name} and smiled",
        "A question about {name} was part of the quiz",
    ),
)
_THING_MENTIONS: Pair = (
    (
        "Yesterday we talked about the {type} {name}",
        "The magazine has a page about the {type} {name}",
        "The quiz had a question about the {type} {name}",
        "My sister often speaks of the {type} {name}",
        "There is a long article about the {type} {name}",
        "The radio had a programme about the {type} {name}",
    ),
    (
        "The students wrote an essay about the {type} {name}",
        "She remembered the {type} {name} very well",
        "In the archive they found notes about the {type} {name}",
        "The evening was devoted to the {type} {name}",
        "He had never heard of the {type} {name} before",
        "They spent an hour on the {type} {name} and then left",
    ),
)


def _things(name: str) -> Pair:
    train, heldout = _THING_MENTIONS
    return tuple(t.replace("{type}", name) for t in train), tuple(t.replace("{type}", name) for t in heldout)


MENTIONS: Mapping[str, Pair] = {
    "country": _COUNTRY_MENTIONS,
    "person": _PERSON_MENTIONS,
    "city": _things("city of"),
    "movie": _things("movie"),
    "song": _things("song"),
    "player": _things("player"),
}


def templates_for(type: str) -> tuple[Template, ...]:
    """All templates of an entity type: questions by relation, then mentions, train before held-out."""
    return tuple(_numbered(type, QUESTIONS[type], MENTIONS[type]))


def _numbered(type: str, questions: Mapping[str, Pair], mentions: Pair) -> Iterator[Template]:
    for relation, pair in {**questions, "": mentions}.items():
        splits: tuple[Split, Split] = ("train", "heldout")
        for split, texts in zip(splits, pair, strict=True):
            for i, text in enumerate(texts):
                name = relation or "mention"
                yield Template(f"{type}.{name}.{split}.{i}", relation, type, text, split, 2 if ">" in relation else 1)
