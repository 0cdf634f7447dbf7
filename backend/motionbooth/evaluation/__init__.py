"""What a finished clip shows, measured from its pixels: did the subject go where it was asked, and the camera?"""
