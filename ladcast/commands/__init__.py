"""The commands of `ladcast`: one short file each, whose functions are the command line."""
