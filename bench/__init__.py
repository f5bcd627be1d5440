"""Figures of roost against stock HTCondor: same machine, same run, in turns."""
