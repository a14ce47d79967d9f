"""When two captions count as the same caption."""


def normalised_caption(caption: str) -> str:
    """The caption without case, repeated blanks, and full stops or exclamation marks at its end.

    Two captions are the same if their normalised forms are equal: "A dog  barks ." and
    "a dog barks". Drawn splits and the shared positives of retrieval both use this rule.
    """
    return " ".join(caption.casefold().split()).rstrip(" .!")
