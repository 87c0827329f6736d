"""Coverage-guided fuzzing of what meets the network; see README.md."""
