"""The Dockerfile language, as BuildKit's Dockerfile frontend 1.x reads it; nothing is executed.

``parse.parse`` makes a ``syntax.Dockerfile`` of a file's bytes, ``stages.plan`` says which of its stages a
target needs, ``scope.Scope`` holds the variables while instructions are gone through, and each instruction's
``expanded`` puts their values in. ``ignore`` is .dockerignore. What BuildKit documents is in its Dockerfile
reference (docs.docker.com/reference/dockerfile); what it does beyond that is said where it matters.
"""
