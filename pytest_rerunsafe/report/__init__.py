"""Pure functions over verdicts: their text and their JSON; nothing is read, written or printed here."""
