"""What the JSON files of the project say: strict models, nothing executable, no heavy imports."""
