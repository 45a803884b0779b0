"""The commands: words in, words out. No decisions here."""
