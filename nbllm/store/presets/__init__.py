"""Models that a person made of other models, each a file in `.presets` in the models folder.

naming.py      what a preset may be called, and its file
places.py      what FROM and ADAPTER may mean
params.py      parameters, by Ollama's names and ours
templates.py   Jinja, or Ollama's own language
text.py        what holds of a text of either form
modelfile.py   Ollama's form
blocks.py      the texts in it
tomlfile.py    the form on disk
files.py       the folder, read
flattening.py  presets that are made of presets
shelf.py       all of it, as other rooms use it
"""
