"""AdversarialQA: questions that people wrote to fool a model in the loop."""
