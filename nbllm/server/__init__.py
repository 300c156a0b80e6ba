"""The notebook server's side: routes on Jupyter's own Tornado app. It never loads llama.cpp."""
