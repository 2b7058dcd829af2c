"""Images from Dockerfiles: a text becomes stages, stages become layers by the engine's own parts, layers an image.

`dockerfile`, `words`, `instructions`, `plan`, `ignore`, `selection` and `config` are pure. `builder` keeps what builds leave
for the next ones (`cache`, `layers`), `job` is one build, `running` a RUN, `contexts` what a build is given.
"""
