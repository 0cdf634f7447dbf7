"""The memory plan: which parts of a base model are on the device when, chosen before anything is loaded."""
