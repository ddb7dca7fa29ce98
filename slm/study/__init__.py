"""Claims of papers, put to the test: a system and its controls trained with several seeds, and compared on speech they have not heard."""
