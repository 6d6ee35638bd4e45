"""From the next batch to the label: batches, labels, decisions, rounds, annotators."""
