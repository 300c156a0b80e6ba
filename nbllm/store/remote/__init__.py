"""What names mean on other machines. Nothing here asks them.

names.py        what a person writes -> repository, file, quantization of the Hugging Face hub
short_names.py  the shipped table of well-known models
choice.py       the files of a repository -> those of one model, by this machine's memory
pulled.py       the same for what was pulled from the hub already
errors.py       what a pull that cannot be says
"""
