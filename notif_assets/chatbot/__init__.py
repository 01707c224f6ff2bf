"""Answer files to answers, and answers to the last answers of each session."""
