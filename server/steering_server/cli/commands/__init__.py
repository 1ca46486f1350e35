"""The commands of ``steer``, one module each. Beside this folder lie what they share and the work of the longer."""
