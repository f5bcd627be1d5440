"""What runs inside every container of a pool: one program, three roles.

Standard library only, plus ``cryptography`` and ``supervisor``, which the image has from Debian.
"""
