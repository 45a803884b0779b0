"""Build images from Dockerfiles: ``builder`` goes through the instructions, and each makes a layer or none.

``state`` is what an instruction starts from and leads to, ``settings`` what instructions say of the image,
``runs`` and ``running`` carry out RUN, ``copies``, ``copying``, ``archives`` and ``sources`` what brings
files, ``steps`` remembers what was done before.
"""
