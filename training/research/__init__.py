"""What only makes our own report: many trainings, compared and drawn."""
