"""HotpotQA: questions over two Wikipedia paragraphs, among distractors or alone."""
