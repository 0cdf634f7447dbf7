"""The two controls of MotionBooth: boxes for subjects (attention) and the camera (latent shift).

Pixels and latent cells appear in this package and nowhere else; everything outside speaks shares of the frame.
"""
