"""The two controls of MotionBooth: boxes for subjects (attention) and the camera (latent shift).

Only this package computes in latent cells; the rest of the backend has positions in shares of the frame.
"""
