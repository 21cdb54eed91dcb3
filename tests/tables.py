"""Tables in Markdown, read back."""


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, row by row, heading and the line below it included; all else is left out."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
