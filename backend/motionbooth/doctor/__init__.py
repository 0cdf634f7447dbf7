"""`motionbooth doctor`: checks a backend's folder and machine, says what to do, and fixes what is safe to fix."""
