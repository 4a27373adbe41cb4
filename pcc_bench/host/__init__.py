"""lm-eval's side: requests in, answers of a frozen decoder that reads memories out."""
