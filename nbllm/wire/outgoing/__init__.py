"""OpenAI's API from the client's side: what is sent to another server, and what its answers mean.

bodies     a request as JSON, and whether this server would do all of it
answers    streamed events as chunks; vectors
refusals   an HTTP status and its body as an error
listing    what a server says of its models, and what kind of server that shows it to be
"""
