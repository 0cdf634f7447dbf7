"""Pictures of subjects: reading them, and telling what a subject looks like."""
