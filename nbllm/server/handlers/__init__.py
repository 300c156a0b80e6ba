"""The handlers of the routes: parse, ask the service, answer."""
