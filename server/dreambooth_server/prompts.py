"""From a person's words to the model's: the subject's name becomes what the model was taught to call it."""

import re
from dataclasses import dataclass

from dreambooth_api.parse import fill_prompt

SUBJECT_FIELD = "{subject}"


@dataclass(frozen=True)
class Naming:
    """What a subject is called by people, and what by its model."""

    name: str
    """By people: `publish.name`."""
    identifier: str
    class_name: str

    @property
    def words(self) -> str:
        """What the subject's model draws it from."""
        return f"{self.identifier} {self.class_name}"


def for_subject(prompt: str, naming: Naming) -> str:
    """`prompt` with the subject's name, or `{subject}`, replaced by `identifier className`.

    A prompt that has the identifier already keeps its words: there the name may be the class's.
    """
    prompt = fill_prompt(prompt, naming.identifier, naming.class_name).replace(SUBJECT_FIELD, naming.words)
    if _word(naming.identifier).search(prompt):
        return prompt
    # Someone who names the class too ("robbie robot") means it once.
    named = re.compile(rf"{_word(naming.name).pattern}(?:\s+{_word(naming.class_name).pattern})?", re.IGNORECASE)
    return named.sub(lambda _: naming.words, prompt)


def for_base(prompt: str, naming: Naming) -> str:
    """`prompt` for the base, which never saw the subject: its name becomes the noun of its class."""
    prompt = fill_prompt(prompt, naming.identifier, naming.class_name).replace(SUBJECT_FIELD, naming.class_name)
    named = re.compile(rf"{_word(naming.name).pattern}(?:\s+{_word(naming.class_name).pattern})?", re.IGNORECASE)
    return named.sub(lambda _: naming.class_name, prompt)


def _word(text: str) -> re.Pattern[str]:
    # Not \b: a name may end in a character that \b takes for no part of a word.
    return re.compile(rf"(?<![\w-]){re.escape(text)}(?![\w-])", re.IGNORECASE)
