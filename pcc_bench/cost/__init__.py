"""What a method costs: measured (`measure`) and computed from sizes of models alone (`predict`)."""
