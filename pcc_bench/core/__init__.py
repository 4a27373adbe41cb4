"""What every part stands on: the contract, the decoder, marks, memories, files, errors."""
