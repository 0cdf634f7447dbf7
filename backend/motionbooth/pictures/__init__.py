"""Pictures of subjects: files, masks, and the subject's appearance."""
